"""What becomes of the requests of a service, from its load, its replicas, and what is wrong.

Latencies and refusals are those of the project's measured latency table. All is deterministic: the
fate of a request follows from its number, by sequences that fill 0..1 evenly, so that the shares
and quantiles of a minute are those of the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

import numpy as np

from faro_lib.queueing import LatencyTable
from faro_lib.simulate import LIVE
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job
from faro_ops.operate.rayserve.statistics import bucket_of, empty_row

# Levels at which the distribution of latencies is measured; between them, it is interpolated.
LEVELS = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.999)
COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24)  # replica counts that are measured
REQUESTS = 10_000  # simulated for each of them
QUANTILE = 0.99  # of the SLO
GRAIN_RPS = 0.05  # rates are rounded to it, so that few of them are looked up
ERROR_S = 0.01  # until an error that is answered at once
# Multiples of them, modulo 1, fill 0..1 evenly, each for itself and all together.
STEPS = np.sqrt([5.0, 2.0, 3.0, 7.0])
LATENCY, REFUSED, FAILED, HANGS_UP = range(4)
MOST_RHO = 3.0  # largest measured utilisation


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a service, or with its clients.

    factor : true service time over the stated one.
    failing : share of the requests that the service answers with an error.
    at_once : whether errors are answered in ERROR_S, instead of after a service.
    hanging_up : share of the clients that hang up after `patience_s`.
    floor_s : the shortest latency, for example of a database behind the service.
    """

    factor: float = 1.0
    failing: float = 0.0
    at_once: bool = False
    hanging_up: float = 0.0
    patience_s: float = math.inf
    floor_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A service during some time: how many replicas serve, what is wrong, what Faro accepts."""

    replicas: int
    trouble: Trouble = field(default_factory=Trouble)
    accept: float = 1.0  # share of the requests


WELL = Trouble()


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of the requests of some time.

    served_s : latencies of those that were served.
    known_s : latencies in metrics that count every answer and every client that has hung up.
    """

    arrivals: int
    refused: int
    failed: int
    cancelled: int
    served_s: np.ndarray
    known_s: np.ndarray


def together(outcomes: list[Outcome]) -> Outcome:
    """The sum of several outcomes."""

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in outcomes)

    def all_of(name: str) -> np.ndarray:
        return np.concatenate([np.empty(0), *(getattr(one, name) for one in outcomes)])

    counts = (total(name) for name in ("arrivals", "refused", "failed", "cancelled"))
    return Outcome(*counts, all_of("served_s"), all_of("known_s"))


@dataclass(frozen=True)
class Service:
    """A service with serial replicas of this stated time; hashable, so that results are reused."""

    service_s: float
    slo_s: float

    def job(self, quantile: float) -> Job:
        return Job(
            "soak",
            model="soak",
            slo_s=self.slo_s,
            service_time_s=self.service_s,
            quantile=quantile,
        )

    def latencies_s(self, rate_rps: float, replicas: int, factor: float) -> np.ndarray:
        """Latencies at LEVELS of the requests that are served, (levels,); at least one replica."""
        per_replica = factor * rate_rps * self.service_s / replicas
        held = rate_rps * min(1.0, MOST_RHO / max(per_replica, 1e-9))  # more is refused at once
        return factor * _latencies_s(self, round(factor * held / GRAIN_RPS), replicas)

    def refused(self, rate_rps: float, replicas: int, factor: float) -> float:
        """Share of the requests that find all queues full."""
        if replicas < 1:
            return 1.0
        return _refused(self, round(factor * rate_rps / GRAIN_RPS), replicas)

    def enough(self, rate_rps: float, factor: float = 1.0) -> int:
        """The fewest replicas with which the SLO is met in the median minute."""
        table, _ = _tables(self)
        job = self.job(QUANTILE)
        for replicas in range(1, 100):
            tail_s = factor * float(table.tail_latency_s(job, factor * rate_rps, replicas))
            if tail_s <= self.slo_s:
                return replicas
        raise ValueError(f"rate_rps={rate_rps:g}: no number of replicas below 100 is enough")

    def outcome(self, first: int, count: int, rate_rps: float, stage: Stage) -> Outcome:
        """What becomes of the requests with numbers `first` to `first + count` - 1.

        rate_rps : requests per second that arrive in these minutes.
        """
        nothing = np.empty(0)
        if count <= 0:
            return Outcome(0, 0, 0, 0, nothing, nothing)
        if stage.replicas < 1:
            return Outcome(count, count, 0, 0, nothing, nothing)
        trouble = stage.trouble
        point = np.modf(np.arange(first, first + count)[:, None] * STEPS)[0]  # (requests, 4)
        load_rps = rate_rps * stage.accept
        if trouble.at_once:
            load_rps *= 1 - trouble.failing
        full = self.refused(load_rps, stage.replicas, trouble.factor)
        refused = point[:, REFUSED] >= stage.accept * (1 - full)
        failed = ~refused & (point[:, FAILED] < trouble.failing)
        usual_s = self.latencies_s(load_rps, stage.replicas, trouble.factor)
        latency_s = np.exp(np.interp(point[:, LATENCY], LEVELS, np.log(usual_s)))
        latency_s = np.maximum(latency_s, trouble.floor_s)
        if trouble.at_once:
            latency_s = np.where(failed, ERROR_S, latency_s)
        impatient = point[:, HANGS_UP] < trouble.hanging_up
        cancelled = ~refused & impatient & (latency_s > trouble.patience_s)
        failed &= ~cancelled
        served = ~(refused | failed | cancelled)
        known_s = np.where(cancelled, trouble.patience_s, latency_s)[~refused]
        numbers = (int(one.sum()) for one in (refused, failed, cancelled))
        return Outcome(count, *numbers, latency_s[served], known_s)


def ray_row(outcome: Outcome, service_s: float) -> dict:
    """The outcome as what a replica of Ray Serve reports of a second (`statistics.empty_row`)."""
    done = len(outcome.served_s)
    buckets: dict[str, int] = {}
    for latency_s in outcome.served_s.tolist():
        key = str(bucket_of(latency_s))
        buckets[key] = buckets.get(key, 0) + 1
    return empty_row() | {
        "arrivals": outcome.arrivals,
        "dropped": outcome.refused,
        "failed": outcome.failed,
        "cancelled": outcome.cancelled,
        "done": done,
        "latency_s": float(outcome.served_s.sum()),
        "service_s": done * service_s,
        "service_s2": done * service_s**2,
        "buckets": buckets,
    }


@cache
def _tables(service: Service) -> tuple[LatencyTable, LatencyTable]:
    """(the measured table, the same without refusals, whose latencies are always finite)."""
    levels = sorted({*LEVELS, QUANTILE})
    jobs = tuple(replace(service.job(level), name=f"p{level:g}") for level in levels)
    table = measure(jobs, COUNTS, requests=REQUESTS, serving_model=LIVE)
    return table, replace(table, excess_drops=np.full(table.excess_drops.shape, -1.0))


@lru_cache(maxsize=10_000)
def _latencies_s(service: Service, grains: int, replicas: int) -> np.ndarray:
    _, of_served = _tables(service)
    rate_rps = grains * GRAIN_RPS
    found = [of_served.tail_latency_s(service.job(one), rate_rps, replicas) for one in LEVELS]
    return np.array(found, float)


@lru_cache(maxsize=10_000)
def _refused(service: Service, grains: int, replicas: int) -> float:
    table, _ = _tables(service)
    _, dropped = table.minutes(service.job(QUANTILE), grains * GRAIN_RPS, replicas)
    return float(dropped.mean())
