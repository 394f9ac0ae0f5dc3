"""The replicas' measurements (request counts, latencies) per second.

A Ray actor sums them for each job.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

KEEP_S = 20 * 60  # seconds for which statistics are kept; policies use the last 15 minutes
FRESH_S = 5.0  # a replica whose last heartbeat is older does not count as running
PER_OCTAVE = 16  # latency buckets per doubling of the latency, each 4.4 % wide
FLOOR_S = 1e-3


def bucket_of(latency_s: float) -> int:
    """Index of the log-spaced bucket of a latency in seconds.

    Bucket 0 holds latencies up to about a millisecond.

    >>> bucket_of(0.0005), bucket_of(0.002), bucket_of(0.004)
    (0, 16, 32)
    """
    return max(0, round(PER_OCTAVE * math.log2(max(latency_s, FLOOR_S) / FLOOR_S)))


def latency_of(bucket: int) -> float:
    """Latency in seconds in the middle of a bucket."""
    return FLOOR_S * 2 ** (bucket / PER_OCTAVE)


def empty_row() -> dict[str, Any]:
    """Measurements of one second of a replica or a job, all zero.

    arrivals, dropped : requests that arrived in the second.
    done, failed : requests that ended in the second.
    latency_s : sum of the time in the replica, over `done`.
    service_s, service_s2 : sums of the service time and of its square, over `done`.
    buckets : number of `done` by latency bucket; the keys are strings, as in JSON.
    """
    counts = dict.fromkeys(("arrivals", "dropped", "failed", "done"), 0)
    return counts | dict.fromkeys(("latency_s", "service_s", "service_s2"), 0.0) | {"buckets": {}}


def add_row(total: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Add the measurements `row` to `total`, in place, and return `total`."""
    for key, value in row.items():
        if key == "buckets":
            add_row(total[key], value)
        else:
            total[key] = total.get(key, 0) + value
    return total


class StatsAggregator:
    """Ray actor with the jobs' measurements and shares of accepted requests, and with the lease.

    The lease is the right to scale the jobs.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, dict[int, dict]] = {}
        # job -> replica -> (time of its last heartbeat, ongoing requests, last second reported)
        self._replicas: dict[str, dict[str, tuple[float, int, int]]] = {}
        self._accept: dict[str, float] = {}
        self._holder = ""  # "" if nobody has the lease
        self._lease_ends_s = 0.0  # by time.monotonic()

    def report(
        self, job: str, replica: str, ongoing: int, rows: Mapping[int, dict]
    ) -> float | None:
        """Record a replica's heartbeat, and return the share of requests that it should accept.

        None if no share was ever set. `rows` maps Unix seconds to measurements (`empty_row`). A
        second that a replica sends twice counts once.
        """
        now = time.time()
        oldest = now - KEEP_S
        seconds = self._seconds.setdefault(job, {})
        replicas = self._replicas.setdefault(job, {})
        _, _, last = replicas.get(replica, (0.0, 0, 0))
        if rows and last > max(rows) + FRESH_S:  # the wall clock was set back
            last = 0
            seconds = {second: row for second, row in seconds.items() if second <= max(rows)}
        for second in sorted(rows):
            if second > last:
                add_row(seconds.setdefault(second, empty_row()), rows[second])
                last = second
        replicas[replica] = (now, ongoing, last)
        self._seconds[job] = {second: row for second, row in seconds.items() if second >= oldest}
        self._replicas[job] = {name: one for name, one in replicas.items() if one[0] >= oldest}
        self._end_lease()
        return self._accept.get(job)

    def accept(self, shares: Mapping[str, float]) -> None:
        """Set the share of requests that each job in `shares` accepts; other jobs accept all."""
        self._end_lease()
        self._accept = dict.fromkeys(self._accept, 1.0) | dict(shares)

    def lease(self, holder: str, duration_s: float, force: bool = False) -> str:
        """Grant `holder` the lease if no other controller has it, or if `force`.

        Returns the holder after this call.
        """
        self._end_lease()
        now_s = time.monotonic()
        if force or now_s >= self._lease_ends_s or holder == self._holder:
            self._holder = holder
            self._lease_ends_s = now_s + duration_s
        return self._holder

    def _end_lease(self) -> None:
        """If the lease has expired, let all jobs accept all requests again.

        If no lease was granted, change nothing.
        """
        if self._holder and time.monotonic() >= self._lease_ends_s:
            self._holder = ""
            self._accept = dict.fromkeys(self._accept, 1.0)

    def read(self, since: int = 0) -> dict[str, dict[str, Any]]:
        """The statistics of each job.

        seconds : the measurements by Unix second, from `since` on.
        ongoing, replicas : numbers of ongoing requests and of live replicas.
        accept : the share of requests that the replicas accept; None if never set.
        """
        self._end_lease()
        now = time.time()
        jobs = {}
        for job, seconds in self._seconds.items():
            heartbeats = self._replicas[job].values()
            fresh = [ongoing for heard, ongoing, _ in heartbeats if now - heard <= FRESH_S]
            jobs[job] = {
                "seconds": {str(second): row for second, row in seconds.items() if second >= since},
                "ongoing": sum(fresh),
                "replicas": len(fresh),
                "accept": self._accept.get(job),
            }
        return jobs
