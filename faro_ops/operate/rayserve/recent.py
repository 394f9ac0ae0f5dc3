"""Request counts and latencies of the jobs by minute of trace time, from the replicas' statistics.

Trace time may run faster than wall time (`Clock`). NaN = missing.
"""

import math
from collections.abc import Callable, Collection, Mapping
from functools import reduce
from typing import Any

import numpy as np

from faro_lib.protocol import ENDED, HISTORY_MINUTES, LATENCY_WINDOW_S
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Replica
from faro_ops.operate.clock import Clock
from faro_ops.operate.rayserve.coverage import Coverage
from faro_ops.operate.rayserve.statistics import add_row, empty_row, latency_of
from faro_ops.operate.rayserve.streams import Streams, by_slo, counted

# A count needs data for at least this share of its seconds; otherwise it is NaN.
MIN_KNOWN_SHARE = 0.75
NOT_SERVED = ("dropped", "failed", "cancelled")  # counts of a row


class RecentSeconds:
    """Statistics of the jobs for each recent wall-clock second.

    A second has data if all replicas of the job have reported it (`Coverage`), none of them with
    measurements that cannot be right. The arguments `minute` and `now_s` are in trace time. Results
    are arrays of shape (jobs,) unless stated. If a second is added twice, the row with more
    requests is kept: a late report completes it, and a `StatsAggregator` that restarts may lose
    requests.

    replicas : by the job's name, which says what its SLO limits if it generates tokens.
    """

    def __init__(
        self,
        jobs: tuple[str, ...],
        clock: Clock,
        replicas: Mapping[str, Replica] | None = None,
    ):
        self._clock = clock
        self._replicas = replicas or {}
        self._seconds: dict[str, dict[int, dict[str, Any]]] = {job: {} for job in jobs}
        self._wrong: dict[str, set[int]] = {job: set() for job in jobs}
        self._coverage = {job: Coverage() for job in jobs}
        self._minutes: dict[int, list[tuple[dict[str, Any], int]]] = {}  # `totals` since `add`

    def add(
        self,
        job: str,
        seconds: Mapping[int, dict[str, Any]],
        wrong: Collection[int] = (),
        coverage: Coverage | None = None,
    ) -> None:
        """Add what a job's replicas reported.

        seconds : Unix second -> measurements.
        wrong : Unix seconds of which some replica's measurements cannot be right.
        coverage : which seconds all replicas have reported; None: all.
        """
        self._minutes.clear()
        coverage = coverage or Coverage()
        known = self._seconds[job]
        newest = coverage.read_s or max(seconds or known, default=0)
        for second, row in seconds.items():
            known[second] = max(row, known.get(second, row), key=_requests)
        oldest = newest - (HISTORY_MINUTES + 2) * MINUTE_S
        # Seconds far in the future were reported before the wall clock was set back.
        latest = newest + MINUTE_S
        self._seconds[job] = {
            second: row for second, row in known.items() if oldest <= second <= latest
        }
        self._wrong[job] = {second for second in self._wrong[job].union(wrong) if second >= oldest}
        self._coverage[job] = coverage

    def totals(self, first: int, last: int) -> list[tuple[dict[str, Any], int]]:
        """(total, n) of each job over the Unix seconds `first` to `last` - 1.

        `total` is the sum of their measurements, and n the number of these seconds with data. Its
        latencies are those that the job's SLO limits (`by_slo`).
        """
        totals = []
        for job, of_second in self._seconds.items():
            wrong = self._wrong[job]
            rows = [
                of_second[second]
                for second in self._coverage[job].complete(first, last)
                if second in of_second and second not in wrong
            ]
            total = by_slo(reduce(add_row, rows, empty_row()), self._replicas.get(job))
            totals.append((total, len(rows)))
        return totals

    def arrivals_per_min(self, minute: int) -> np.ndarray:
        """Requests in each of the last minutes before `minute`, oldest first.

        Shape (jobs, <= HISTORY_MINUTES).
        """
        first = max(0, minute - HISTORY_MINUTES)
        counts = np.full((len(self._seconds), minute - first), np.nan)
        for column, one in enumerate(range(first, minute)):
            for row, (total, known) in enumerate(self._minute(one)):
                if known >= MIN_KNOWN_SHARE * self._clock.minute_s:
                    counts[row, column] = round(total["arrivals"] * self._clock.minute_s / known)
        return counts

    def arrivals_now(self, minute: int, now_s: float) -> np.ndarray:
        """Requests from the beginning of `minute` until `now_s`."""
        first = round(self._clock.wall_s(minute * MINUTE_S))
        last = math.floor(self._clock.wall_s(now_s))
        enough = max(1, MIN_KNOWN_SHARE * (last - first))
        counts = [
            total["arrivals"] * (last - first) / known if known >= enough else np.nan
            for total, known in self.totals(first, last)
        ]
        return np.array(counts)

    def ended_per_min(self, minute: int) -> dict[str, np.ndarray]:
        """Requests of the minute before `minute` that were served, failed, refused or cancelled.

        As fields of an `Observation`; NaN if too few of its seconds have data.
        """
        found = {name: np.full(len(self._seconds), np.nan) for name in ENDED}
        columns = dict(zip(ENDED, ("done", "failed", "dropped", "cancelled")))
        for n, (total, known) in enumerate(self._minute(minute - 1)):
            if known >= MIN_KNOWN_SHARE * self._clock.minute_s:
                for name, column in columns.items():
                    found[name][n] = total[column] * self._clock.minute_s / known
        return found

    def mean_latency_s(self, now_s: float) -> np.ndarray:
        """Mean latency of the requests that ended in the last LATENCY_WINDOW_S.

        A dropped request counts as 0 s. The mean is 0 if no request ended, as in an idle job. It is
        NaN if no second has data, or if no request was served or dropped although some ended.
        """
        last = math.floor(self._clock.wall_s(now_s))
        first = last - math.ceil(LATENCY_WINDOW_S / self._clock.scale)
        means_s = []
        for total, known in self.totals(first, last):
            measured = total["done"] + total["dropped"]
            faulty = total["failed"] + total["cancelled"]
            if not known or (faulty and not measured):
                means_s.append(math.nan)
            else:
                means_s.append(total["latency_s"] * self._clock.scale / max(measured, 1))
        return np.array(means_s)

    def tail_latency_s(self, minute: int, quantile: np.ndarray) -> np.ndarray:
        """Latency quantiles in the minute before `minute`, for the jobs' quantiles (jobs,).

        Requests that were not served count as inf.
        """
        return self._quantiles_s(minute, quantile, quantile_of_row)

    def served_tail_latency_s(self, minute: int, quantile: np.ndarray) -> np.ndarray:
        """The same of the served requests only; NaN without any."""
        return self._quantiles_s(minute, quantile, quantile_of_served)

    def _quantiles_s(
        self, minute: int, quantile: np.ndarray, of: Callable[[Mapping[str, Any], float], float]
    ) -> np.ndarray:
        enough = MIN_KNOWN_SHARE * self._clock.minute_s
        wall_s = [
            of(total, q) if known >= enough else np.nan
            for (total, known), q in zip(self._minute(minute - 1), quantile)
        ]
        return self._clock.scale * np.array(wall_s)

    def token_latencies_s(self, minute: int, quantile: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quantiles of the time to the first token and of the time per later token.

        They are those of the streamed answers that ended in the minute before `minute`, where
        requests that were not served count as inf, and NaN for a job without any.
        """
        enough = MIN_KNOWN_SHARE * self._clock.minute_s
        wall_s = np.full((2, len(self._seconds)), np.nan)
        for n, (total, known) in enumerate(self._minute(minute - 1)):
            if total["streams"] and known >= enough:
                streams = Streams.of(total)
                for of_kind, latency_s in zip(wall_s, (streams.first_s, streams.per_token_s)):
                    row = total | counted(streams.count, latency_s)
                    of_kind[n] = quantile_of_row(row, quantile[n])
        first_s, per_token_s = self._clock.scale * wall_s
        return first_s, per_token_s

    def goodput_rps(self, minute: int, slo_s: np.ndarray) -> np.ndarray:
        """Requests per second in the minute before `minute` that met the SLO, or both limits.

        slo_s : the jobs' SLOs (jobs,). A latency counts as the middle of its bucket, 4 % wide.
        """
        met = [
            sum(
                count
                for bucket, count in total["buckets"].items()
                if latency_of(int(bucket)) * self._clock.scale <= limit_s
            )
            * (self._clock.minute_s / known)
            if known >= MIN_KNOWN_SHARE * self._clock.minute_s
            else np.nan
            for (total, known), limit_s in zip(self._minute(minute - 1), slo_s.tolist())
        ]
        return np.array(met) / MINUTE_S

    def _minute(self, minute: int) -> list[tuple[dict[str, Any], int]]:
        """`totals` of one minute of trace time, which several statistics of a tick need."""
        if minute not in self._minutes:
            first = round(self._clock.wall_s(minute * MINUTE_S))
            self._minutes[minute] = self.totals(first, first + self._clock.minute_s)
        return self._minutes[minute]


def _requests(row: Mapping[str, Any]) -> int:
    ended = sum(row.get("streams", {}).values())
    return row["arrivals"] + row["done"] + row["dropped"] + ended


def quantile_of_row(row: Mapping[str, Any], quantile: float) -> float:
    """Latency quantile of `row` in wall seconds; NaN if no request ended.

    Requests that were not served count as inf.

    >>> row = {"done": 3, "dropped": 0, "failed": 0, "cancelled": 0, "buckets": {"16": 2, "32": 1}}
    >>> quantile_of_row(row, 0.5)
    0.002
    """
    return _quantile(row, quantile, sum(row[key] for key in NOT_SERVED) + row["done"])


def quantile_of_served(row: Mapping[str, Any], quantile: float) -> float:
    """Latency quantile of the served requests of `row` in wall seconds; NaN without any."""
    return _quantile(row, quantile, row["done"])


def _quantile(row: Mapping[str, Any], quantile: float, ended: float) -> float:
    if not ended:
        return math.nan
    buckets = sorted(row["buckets"], key=int)
    requests_up_to = np.cumsum([row["buckets"][bucket] for bucket in buckets])  # (buckets,)
    reached = requests_up_to >= math.ceil(quantile * ended)
    return latency_of(int(buckets[reached.argmax()])) if reached.any() else math.inf
