"""What policies observe of the replicas' seconds: counts by minute and latencies. Missing data is NaN, never zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from faro_lib.control.clock import Clock
from faro_lib.policies.protocol import HISTORY_MINUTES, LATENCY_WINDOW_S
from faro_lib.rayserve.statistics import add_row, empty_row, latency_of
from faro_lib.workload.jobs import MINUTE_S

MIN_KNOWN_SHARE = 0.75  # of a minute's seconds; with fewer the minute is missing, with more its count is scaled up


class RecentSeconds:
    """The seconds of each job, as last reported.

    Of two versions of a second the one with more requests wins, so nothing is lost when the aggregator restarts.
    Arrays have shape (jobs,); times are wall seconds in the rows and trace seconds in the results.
    """

    def __init__(self, jobs: tuple[str, ...]):
        self._seconds: dict[str, dict[int, dict[str, Any]]] = {job: {} for job in jobs}

    def add(self, job: str, seconds: Mapping[str, dict[str, Any]]) -> None:
        known = self._seconds[job]
        for key, row in seconds.items():
            second = int(key)
            if second not in known or _requests(row) >= _requests(known[second]):
                known[second] = row
        oldest = max(known, default=0) - (HISTORY_MINUTES + 2) * MINUTE_S
        self._seconds[job] = {second: row for second, row in known.items() if second >= oldest}

    def totals(self, first: int, last: int) -> list[tuple[dict[str, Any], int]]:
        """For each job the sum of the seconds first <= second < last, and the number of them that are known."""
        totals = []
        for seconds in self._seconds.values():
            total, rows = empty_row(), [seconds[second] for second in range(first, last) if second in seconds]
            for row in rows:
                add_row(total, row)
            totals.append((total, len(rows)))
        return totals

    def arrivals_per_min(self, clock: Clock, minute: int) -> np.ndarray:
        """(jobs, <= HISTORY_MINUTES) counts of the last complete minutes before `minute`, oldest first."""
        first = max(0, minute - HISTORY_MINUTES)
        counts = np.full((len(self._seconds), minute - first), np.nan)
        for column, one in enumerate(range(first, minute)):
            for row, (total, known) in enumerate(self._minute(clock, one)):
                if known >= MIN_KNOWN_SHARE * clock.minute_s:
                    counts[row, column] = round(total["arrivals"] * clock.minute_s / known)
        return counts

    def arrivals_now(self, clock: Clock, minute: int, now_s: float) -> np.ndarray:
        """Arrivals since the last complete minute."""
        totals = self.totals(clock.origin_s + minute * clock.minute_s, math.floor(clock.wall_s(now_s)))
        return np.array([float(total["arrivals"]) for total, _ in totals])

    def mean_latency_s(self, clock: Clock, now_s: float) -> np.ndarray:
        """Mean over the requests that ended in the latency window, dropped ones with 0; 0 if none ended."""
        end = math.floor(clock.wall_s(now_s))
        totals = self.totals(end - math.ceil(LATENCY_WINDOW_S / clock.scale), end)
        return np.array(
            [
                total["latency_s"] * clock.scale / max(total["done"] + total["dropped"], 1) if known else np.nan
                for total, known in totals
            ]
        )

    def tail_latency_s(self, clock: Clock, minute: int, quantile: np.ndarray) -> np.ndarray:
        """The jobs' latency quantiles over the last complete minute; inf if dropped requests reach into the quantile."""
        return np.array(
            [
                clock.scale * quantile_of_row(total, q) if known >= MIN_KNOWN_SHARE * clock.minute_s else np.nan
                for (total, known), q in zip(self._minute(clock, minute - 1), quantile)
            ]
        )

    def _minute(self, clock: Clock, minute: int) -> list[tuple[dict[str, Any], int]]:
        first = clock.origin_s + minute * clock.minute_s
        return self.totals(first, first + clock.minute_s)


def quantile_of_row(row: Mapping[str, Any], quantile: float) -> float:
    """The latency quantile of a row's ended requests in wall seconds, where dropped and failed ones count as infinite.

    >>> quantile_of_row({"done": 3, "dropped": 0, "failed": 0, "buckets": {"16": 2, "32": 1}}, 0.5)
    0.002
    """
    ended = row["done"] + row["dropped"] + row["failed"]
    if not ended:
        return math.nan
    rank, cumulative = math.ceil(quantile * ended), 0
    for bucket in sorted(row["buckets"], key=int):
        cumulative += row["buckets"][bucket]
        if cumulative >= rank:
            return latency_of(int(bucket))
    return math.inf


def _requests(row: Mapping[str, Any]) -> int:
    return row["arrivals"] + row["done"] + row["dropped"]
