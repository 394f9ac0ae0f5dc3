"""What a minute says about the speed of a service, and what it does not.

Only the latencies of served requests in an undisturbed minute say how fast a service is. A minute
is disturbed if requests failed or clients gave up, if a replica started or was lost, if CPU limits
slowed the replicas, or if latencies look cut off, as when clients give up after a fixed time.
Refused requests say at most that the service is slow enough to be overloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from faro_lib.protocol import ENDED, Observation
from faro_lib.queueing import LatencyModel
from faro_lib.queueing.shared_factor import idle_latency_s
from faro_lib.sharing.units import units_of
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import SERIAL

MAX_THROTTLED = 0.05  # share of a minute
CONSTANT = 0.8  # service times hardly vary if their mean is more than this share of their quantile


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of the jobs in the current minute; arrays (jobs,)."""

    fewest: np.ndarray  # that served
    most: np.ndarray
    drop: np.ndarray  # the largest drop rate in force
    # Bool, whether a replica started, or stopped although none was removed, or the job was refused
    # until the beginning of the minute.
    unsteady: np.ndarray
    running: np.ndarray  # at the last observation; NaN before the first
    target: np.ndarray

    @classmethod
    def start(cls, jobs: int) -> "Replicas":
        none = np.zeros(jobs)
        unknown = np.full(jobs, np.nan)
        return cls(none + np.inf, none, none, none.astype(bool), unknown, unknown)

    def seen(self, observation: Observation) -> "Replicas":
        """The replicas after another observation of the same minute."""
        running, target = observation.running.astype(float), observation.target.astype(float)
        started = running > self.running  # False for NaN
        lost = self.running - running > np.maximum(self.target - target, 0)
        return Replicas(
            np.minimum(self.fewest, running),
            np.maximum(self.most, running),
            np.maximum(self.drop, observation.drop),
            self.unsteady | started | lost,
            running,
            target,
        )

    def next_minute(self) -> "Replicas":
        """The replicas at the beginning of the minute that follows the last observation.

        A job that was refused until then begins unsteadily: replicas that others share load its
        model first.
        """
        now = self.running
        return replace(self, fewest=now, most=now, drop=np.zeros(len(now)), unsteady=self.drop >= 1)


def of_units(jobs: tuple[Job, ...], observation: Observation) -> Observation:
    """The observation in which a job that shares replicas has all those of its pool.

    Homes of replicas may change without any replica that starts or stops.
    """
    units = units_of(jobs)
    if not units.pools:
        return observation
    running, target = (
        units.spread(units.sums(counts)) for counts in (observation.running, observation.target)
    )
    return replace(observation, running=running, target=target)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the last complete minute says about the jobs' services; arrays (jobs,)."""

    rate_rps: np.ndarray  # requests per second that were not refused; NaN if unknown
    fewest: np.ndarray  # replicas that served
    most: np.ndarray
    tail_s: np.ndarray  # latency quantile of the served requests; NaN if unknown
    served_per_min: np.ndarray  # NaN if unknown
    busy_s: np.ndarray  # busy seconds of the replicas per request; NaN if unknown
    # Bool. `informative`: the latency says how fast the service is. `overloaded`: requests were
    # refused for lack of replicas, and nothing else was wrong. At most one of them is True.
    informative: np.ndarray
    overloaded: np.ndarray
    # Both are False for jobs that share replicas. `met_slo`: an informative minute met the SLO.
    # `missed_slo`: the served requests missed the SLO, or their latency is unknown, or requests
    # were refused for lack of replicas. Failures alone do not count.
    met_slo: np.ndarray
    missed_slo: np.ndarray


def evidence_of(
    jobs: Sequence[Job],
    observation: Observation,
    replicas: Replicas,
    latency_model: LatencyModel,
) -> Evidence:
    """What the last complete minute of an observation says.

    replicas : those of that minute; of a job that shares replicas, all those of its pool.
    latency_model : assumes the stated service times.
    """
    count = len(jobs)
    allowed = np.array([1 - job.quantile for job in jobs])
    slo_s = np.array([job.slo_s for job in jobs])
    alone = ~units_of(tuple(jobs)).shares
    arrivals = observation.arrivals_per_min[:, -1]
    unknown = np.full(count, np.nan)
    counts = (getattr(observation, name) for name in ENDED)
    served, failed, refused, cancelled = (unknown if one is None else one for one in counts)
    tail_s = observation.served_tail_latency_s
    tail_s = observation.tail_latency_s if tail_s is None else tail_s

    harmless = np.maximum(allowed / 2 * arrivals, 0)  # so many hardly move the quantile
    faulty = np.nan_to_num(failed) + np.nan_to_num(cancelled)
    dropped = replicas.drop * arrivals
    excess = np.where(
        np.isnan(refused),
        np.where(np.isinf(observation.tail_latency_s) & (faulty <= harmless), np.inf, 0.0),
        refused - dropped,
    )
    disturbed = (faulty > harmless) | ~(replicas.fewest >= 1)
    if observation.throttled is not None:
        disturbed = disturbed | (observation.throttled > MAX_THROTTLED)
    usable = (arrivals > 0) & (replicas.drop <= allowed / 2)
    latencies_s = tail_s, observation.mean_latency_s
    disturbed = disturbed | cut_off(jobs, np.flatnonzero(usable), *latencies_s, latency_model)
    overflow = excess > harmless
    steady = ~disturbed & ~replicas.unsteady
    informative = usable & steady & ~overflow & (tail_s > 0) & np.isfinite(tail_s)
    # Where served requests were in time, the replicas were not busy all the time: requests were
    # refused for a moment only, for example when the first replica started.
    overloaded = usable & ~disturbed & overflow & ~(tail_s <= slo_s)
    met_slo = alone & informative & (tail_s <= slo_s)
    missed_slo = alone & (arrivals > 0) & (overflow | ~(tail_s <= slo_s))
    return Evidence(
        arrivals * (1 - replicas.drop) / MINUTE_S,
        replicas.fewest,
        replicas.most,
        tail_s,
        served,
        unknown if observation.busy_s is None else observation.busy_s,
        informative,
        overloaded,
        met_slo,
        missed_slo,
    )


def cut_off(
    jobs: Sequence[Job],
    which: np.ndarray,
    tail_s: np.ndarray,
    mean_s: np.ndarray,
    latency_model: LatencyModel,
) -> np.ndarray:
    """Whether clients gave up after a time that is shorter than many service times, bool (jobs,).

    Then, the latency quantile `tail_s` (jobs,) is the time after which they gave up. It is shorter
    than that of an idle service, and the mean `mean_s` (jobs,) is close to it. A service that is
    faster than stated has a shorter quantile, too, but a mean that is as much shorter.

    which : numbers of the jobs to look at; False for the others.
    """
    cut = np.zeros(len(jobs), bool)
    serial = np.array([n for n in which if jobs[n].replica == SERIAL], int)
    if not len(serial):
        return cut
    jobs, tail_s, mean_s = [jobs[n] for n in serial], tail_s[serial], mean_s[serial]
    idle_s = idle_latency_s(latency_model, jobs)
    # Of the quantile that the mean has in an idle service.
    share = latency_model.saturated_s(jobs) / idle_s
    close = mean_s > np.sqrt(share) * tail_s
    cut[serial] = (share < CONSTANT) & (tail_s < idle_s) & close
    return cut
