"""Jobs' request counts and latencies by minute of trace time, which may run faster than wall time (`Clock`); NaN = missing."""

import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from faro_lib.policies.protocol import HISTORY_MINUTES, LATENCY_WINDOW_S
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.controller.clock import Clock
from faro_ops.rayserve.statistics import add_row, empty_row, latency_of

MIN_KNOWN_SHARE = (
    0.75  # a count needs data for at least this share of its seconds; otherwise it is NaN
)


class RecentSeconds:
    """Statistics of the jobs for each recent wall-clock second. Arrays have shape (jobs,) unless stated.

    The arguments `minute` and `now_s` are in trace time. If a second is added twice, the row with more requests is
    kept, because a `StatsAggregator` that restarts may lose requests.
    """

    def __init__(self, jobs: tuple[str, ...], clock: Clock):
        self._clock = clock
        self._seconds: dict[str, dict[int, dict[str, Any]]] = {job: {} for job in jobs}

    def add(self, job: str, seconds: Mapping[str, dict[str, Any]]) -> None:
        known, newest = self._seconds[job], max(map(int, seconds), default=0)
        # Discard seconds far in the future: they were reported before the wall clock was set back.
        known = {
            second: row
            for second, row in known.items()
            if not seconds or second <= newest + MINUTE_S
        }
        for key, row in seconds.items():
            rows = row, known.get(int(key), row)
            known[int(key)] = max(
                rows, key=lambda one: one["arrivals"] + one["done"] + one["dropped"]
            )
        oldest = max(known, default=0) - (HISTORY_MINUTES + 2) * MINUTE_S
        self._seconds[job] = {second: row for second, row in known.items() if second >= oldest}

    def totals(self, first: int, last: int) -> list[tuple[dict[str, Any], int]]:
        """(total, n) per job: measurements summed over the Unix seconds `first` to `last` - 1, of which n have data."""
        known = (
            [of[second] for second in range(first, last) if second in of]
            for of in self._seconds.values()
        )
        return [(reduce(add_row, rows, empty_row()), len(rows)) for rows in known]

    def arrivals_per_min(self, minute: int) -> np.ndarray:
        """Requests in each of the last minutes before `minute`, (jobs, <= HISTORY_MINUTES), oldest first; NaN if unknown."""
        first = max(0, minute - HISTORY_MINUTES)
        counts = np.full((len(self._seconds), minute - first), np.nan)
        for column, one in enumerate(range(first, minute)):
            for row, (total, known) in enumerate(self._minute(one)):
                if known >= MIN_KNOWN_SHARE * self._clock.minute_s:
                    counts[row, column] = round(total["arrivals"] * self._clock.minute_s / known)
        return counts

    def arrivals_now(self, minute: int, now_s: float) -> np.ndarray:
        """Requests of each job from the beginning of `minute` until `now_s`; NaN if too few of these seconds are known."""
        first, last = (
            round(self._clock.wall_s(minute * MINUTE_S)),
            math.floor(self._clock.wall_s(now_s)),
        )
        enough = MIN_KNOWN_SHARE * (last - first)
        rows = self.totals(first, last)
        return np.array(
            [
                row["arrivals"] * (last - first) / n if n and n >= enough else np.nan
                for row, n in rows
            ]
        )

    def failed_per_min(self, minute: int) -> np.ndarray:
        """Requests that failed in the minute before `minute`; NaN if none of its seconds is known."""
        return np.array(
            [total["failed"] if known else np.nan for total, known in self._minute(minute - 1)],
            float,
        )

    def mean_latency_s(self, now_s: float) -> np.ndarray:
        """Mean latency of the requests that ended in the last LATENCY_WINDOW_S. A dropped request counts as 0 s.

        It is 0 if no request ended, as in an idle job. It is NaN if no second has data or if all requests failed.
        """
        end = math.floor(self._clock.wall_s(now_s))
        means_s = []
        for total, known in self.totals(end - math.ceil(LATENCY_WINDOW_S / self._clock.scale), end):
            measured = total["done"] + total["dropped"]
            unknown = not known or (total["failed"] and not measured)
            means_s.append(
                math.nan if unknown else total["latency_s"] * self._clock.scale / max(measured, 1)
            )
        return np.array(means_s)

    def tail_latency_s(self, minute: int, quantile: np.ndarray) -> np.ndarray:
        """Latency quantiles (jobs,) in the minute before `minute`. Dropped and failed requests count as inf; NaN = no data."""
        enough, rows = (
            MIN_KNOWN_SHARE * self._clock.minute_s,
            zip(self._minute(minute - 1), quantile),
        )
        wall_s = [
            quantile_of_row(total, q) if known >= enough else np.nan for (total, known), q in rows
        ]
        return self._clock.scale * np.array(wall_s)

    def _minute(self, minute: int) -> list[tuple[dict[str, Any], int]]:
        first = round(self._clock.wall_s(minute * MINUTE_S))
        return self.totals(first, first + self._clock.minute_s)


def quantile_of_row(row: Mapping[str, Any], quantile: float) -> float:
    """Latency quantile of `row` in wall seconds; NaN if no request ended. Dropped and failed requests count as inf.

    >>> quantile_of_row({"done": 3, "dropped": 0, "failed": 0, "buckets": {"16": 2, "32": 1}}, 0.5)
    0.002
    """
    ended = row["done"] + row["dropped"] + row["failed"]
    if not ended:
        return math.nan
    buckets = sorted(row["buckets"], key=int)
    reached = np.cumsum([row["buckets"][bucket] for bucket in buckets]) >= math.ceil(
        quantile * ended
    )
    return latency_of(int(buckets[reached.argmax()])) if reached.any() else math.inf
