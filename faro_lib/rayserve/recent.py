"""From the seconds that replicas reported to what policies see: minutes, means, percentiles. Missing stays missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from faro_lib.control.clock import Clock
from faro_lib.policies.protocol import HISTORY_MINUTES
from faro_lib.rayserve.statistics import add_row, empty_row, latency_of
from faro_lib.workload.jobs import MINUTE_S

WINDOW_S = 30.0  # of the mean latency, trace time
ENOUGH = 0.75  # of a minute's seconds must be known; the count is then scaled up


class History:
    """Seconds by job, as last heard; the fuller version of a second wins, so a board that lost its memory loses us nothing."""

    def __init__(self, jobs: tuple[str, ...]):
        self._seconds: dict[str, dict[int, dict[str, Any]]] = {job: {} for job in jobs}

    def hear(self, job: str, seconds: Mapping[str, dict[str, Any]]) -> None:
        known = self._seconds[job]
        for key, row in seconds.items():
            second = int(key)
            if second not in known or _weight(row) >= _weight(known[second]):
                known[second] = row
        oldest = max(known, default=0) - (HISTORY_MINUTES + 2) * MINUTE_S
        for old in [second for second in known if second < oldest]:
            del known[old]

    def between(self, job: str, first: int, last: int) -> tuple[dict[str, Any], int]:
        """The sum of the seconds first <= second < last, and how many of them are known."""
        total, known = empty_row(), 0
        for second in range(first, last):
            if row := self._seconds[job].get(second):
                add_row(total, row)
                known += 1
        return total, known

    def arrivals_per_min(self, clock: Clock, minute: int) -> np.ndarray:
        """(jobs, <= 15), the last complete minutes of the trace before `minute`; NaN where too few seconds are known."""
        first = max(0, minute - HISTORY_MINUTES)
        counts = np.full((len(self._seconds), minute - first), np.nan)
        for row, job in enumerate(self._seconds):
            for column, one in enumerate(range(first, minute)):
                begins = clock.origin_s + one * clock.minute_s
                total, known = self.between(job, begins, begins + clock.minute_s)
                if known >= ENOUGH * clock.minute_s:
                    counts[row, column] = round(total["arrivals"] * clock.minute_s / known)
        return counts

    def arrivals_now(self, clock: Clock, minute: int, now_s: float) -> np.ndarray:
        """(jobs,) arrivals since the last complete minute."""
        begins = clock.origin_s + minute * clock.minute_s
        ends = math.floor(clock.wall_s(now_s))
        return np.array([float(self.between(job, begins, ends)[0]["arrivals"]) for job in self._seconds])

    def mean_latency_s(self, clock: Clock, now_s: float) -> np.ndarray:
        """(jobs,) trace seconds, of what ended in the last 30 s, the refused with 0; 0 if nothing did, NaN if unknown."""
        ends = math.floor(clock.wall_s(now_s))
        first = ends - math.ceil(WINDOW_S / clock.scale)
        means = []
        for job in self._seconds:
            total, known = self.between(job, first, ends)
            ended = total["done"] + total["dropped"]
            means.append(np.nan if not known else total["latency_s"] * clock.scale / max(ended, 1))
        return np.array(means)

    def percentile_s(self, clock: Clock, minute: int, percentile: np.ndarray) -> np.ndarray:
        """(jobs,) trace seconds, of what ended in the last complete minute; inf if refusals reach into it, NaN if unknown."""
        begins = clock.origin_s + (minute - 1) * clock.minute_s
        result = np.full(len(self._seconds), np.nan)
        for row, job in enumerate(self._seconds):
            total, known = self.between(job, begins, begins + clock.minute_s)
            if known >= ENOUGH * clock.minute_s:
                result[row] = clock.scale * percentile_of_row(total, percentile[row])
        return result


def percentile_of_row(row: Mapping[str, Any], percentile: float) -> float:
    """The latency below which that share of a row's ended requests lies, in wall seconds; refused ones take for ever.

    >>> percentile_of_row({"done": 3, "dropped": 0, "failed": 0, "buckets": {"16": 2, "32": 1}}, 0.5)
    0.002
    """
    ended = row["done"] + row["dropped"] + row["failed"]
    if not ended:
        return math.nan
    rank, passed = math.ceil(percentile * ended), 0
    for bucket in sorted(row["buckets"], key=int):
        passed += row["buckets"][bucket]
        if passed >= rank:
            return latency_of(int(bucket))
    return math.inf


def _weight(row: Mapping[str, Any]) -> int:
    return row["arrivals"] + row["done"] + row["dropped"]
