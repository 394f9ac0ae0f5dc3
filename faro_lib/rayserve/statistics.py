"""What replicas report, second by second, and how long requests took: the only measurements that decisions rest on."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

KEEP_S = 20 * 60  # seconds of history: 15 minutes are observed
FRESH_S = 5.0  # a replica that has been silent for longer does not count
PER_OCTAVE = 16  # buckets a doubling of latency: 4.4 % wide
FLOOR_S = 1e-3


def bucket_of(latency_s: float) -> int:
    """The log-spaced bucket of a latency; everything up to a millisecond is in bucket 0.

    >>> bucket_of(0.0005), bucket_of(0.002), bucket_of(0.004)
    (0, 16, 32)
    """
    return max(0, round(PER_OCTAVE * math.log2(max(latency_s, FLOOR_S) / FLOOR_S)))


def latency_of(bucket: int) -> float:
    """The latency in the middle of a bucket, in seconds."""
    return FLOOR_S * 2 ** (bucket / PER_OCTAVE)


def empty_row() -> dict[str, Any]:
    """One second of one replica or job: counts by the second of arrival (arrivals, dropped) and of the end (the others).

    latency_s, service_s, service_s2 : sums over `done` of the time inside, of the service alone and of its square.
    buckets : how many of `done` fell into each latency bucket; keys are strings, as JSON has them.
    """
    return {
        "arrivals": 0,
        "dropped": 0,
        "failed": 0,
        "done": 0,
        "latency_s": 0.0,
        "service_s": 0.0,
        "service_s2": 0.0,
    } | {"buckets": {}}


def add_row(total: dict[str, Any], row: Mapping[str, Any]) -> None:
    """Add one row to another, in place."""
    for key, value in row.items():
        if key == "buckets":
            for bucket, count in value.items():
                total[key][bucket] = total[key].get(bucket, 0) + count
        else:
            total[key] = total.get(key, 0) + value


class Board:
    """Every job's recent seconds, who reports them, and which share of requests its replicas shall accept.

    Pure but for the clock; runs as one named actor.
    """

    def __init__(self):
        self._seconds: dict[str, dict[int, dict]] = {}
        self._replicas: dict[
            str, dict[str, tuple[float, int, int]]
        ] = {}  # job -> replica -> (heard, inside, last second)
        self._accept: dict[str, float] = {}

    def report(self, job: str, replica: str, inside: int, rows: Mapping[int, dict]) -> float | None:
        """A replica's heartbeat: its finished seconds, each of which counts once. Answers the share to accept, if known."""
        now = time.time()
        seconds, replicas = self._seconds.setdefault(job, {}), self._replicas.setdefault(job, {})
        _, _, last = replicas.get(replica, (0.0, 0, 0))
        for second in sorted(rows):
            if second > last:
                add_row(seconds.setdefault(second, empty_row()), rows[second])
                last = second
        replicas[replica] = (now, inside, last)
        for old in [second for second in seconds if second < now - KEEP_S]:
            del seconds[old]
        for gone in [name for name, (heard, *_) in replicas.items() if heard < now - KEEP_S]:
            del replicas[gone]
        return self._accept.get(job)

    def accept(self, shares: Mapping[str, float]) -> None:
        """From now on these jobs accept so much of what arrives."""
        self._accept.update(shares)

    def read(self, since: int = 0) -> dict[str, dict[str, Any]]:
        """By job: its seconds from `since` on, requests inside, replicas heard of lately, the share to accept if known."""
        now = time.time()
        told = {}
        for job, seconds in self._seconds.items():
            fresh = [inside for heard, inside, _ in self._replicas[job].values() if now - heard <= FRESH_S]
            told[job] = {
                "seconds": {str(second): row for second, row in seconds.items() if second >= since},
                "inside": sum(fresh),
                "replicas": len(fresh),
                "accept": self._accept.get(job),
            }
        return told
