"""What a policy learns about service times while services run.

A `Learner` turns observations into evidence for `queueing.service_factor`: a complete minute's
requests, its latency quantile, and the replicas that served it. It needs nothing else, so it works
on every platform.
"""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.protocol import Observation
from faro_lib.queueing import LatencyModel, service_factor
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S

UNKNOWN_ERROR = 0.3  # relative standard error of a service time that nobody has stated
CHANGED = 0.5  # probability of a new factor after a roll-out
MOST_MISSED = 240  # minutes without observations that are caught up one by one


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of the jobs' service times after some observations."""

    weight: np.ndarray  # (jobs, factors), posterior over `service_factor.FACTORS`
    minute: int  # complete minutes at the last observation
    # In the current minute, (jobs,): fewest and most replicas that served, and largest drop rate.
    fewest: np.ndarray
    most: np.ndarray
    drop: np.ndarray


@dataclass(frozen=True, slots=True)
class Learner:
    """Learns the factors between true and assumed service times from latencies."""

    drift: float = 0.01  # standard deviation of the change of a log factor in a minute
    change: float = 1e-3  # probability per minute that the factor becomes any other

    def start(self, jobs: tuple[Job, ...]) -> Learned:
        stated = np.array([job.service_time_error or UNKNOWN_ERROR for job in jobs])
        none = np.zeros(len(jobs))
        return Learned(service_factor.prior(stated), 0, none + np.inf, none, none)

    def updated(
        self,
        jobs: tuple[Job, ...],
        learned: Learned,
        observation: Observation,
        latency_model: LatencyModel,
    ) -> Learned:
        """What is known after this observation; `latency_model` assumes the stated times."""
        fewest = np.minimum(learned.fewest, observation.running)
        most = np.maximum(learned.most, observation.running)
        drop = np.maximum(learned.drop, observation.drop)
        passed = observation.minute - learned.minute
        if passed <= 0:
            return replace(learned, fewest=fewest, most=most, drop=drop)
        weight = learned.weight
        change = np.full(len(jobs), self.change)
        for _ in range(min(passed, MOST_MISSED)):
            weight = service_factor.drifted(weight, self.drift, change)
        if passed == 1:
            complete = Learned(weight, learned.minute, fewest, most, drop)
            weight = with_evidence(jobs, complete, observation, latency_model)
        now = observation.running.astype(float)
        return Learned(weight, observation.minute, now, now, observation.drop)

    def changed(self, learned: Learned, jobs: np.ndarray) -> Learned:
        """What is still known after a roll-out of some jobs, bool (jobs,)."""
        change = np.where(jobs, CHANGED, 0.0)
        return replace(learned, weight=service_factor.drifted(learned.weight, 0.0, change))

    def factors(self, learned: Learned, count: int) -> np.ndarray:
        """Equally likely factors of each job, (jobs, count)."""
        probabilities = (np.arange(count) + 0.5) / count
        return service_factor.quantile_factors(learned.weight, probabilities)


def with_evidence(
    jobs: tuple[Job, ...], learned: Learned, observation: Observation, latency_model: LatencyModel
) -> np.ndarray:
    """The posterior (jobs, factors) after the latencies of the last complete minute.

    Some minutes say nothing about a job: without requests, without replicas, with requests that the
    policy itself refused, or of replicas that the job shares.
    """
    counts = observation.arrivals_per_min[:, -1]
    tail_s = observation.tail_latency_s
    allowed = np.array([1 - job.quantile for job in jobs])
    alone = np.array([not job.pool for job in jobs])
    served = (learned.fewest >= 1) & (learned.drop <= allowed / 2)
    which = np.flatnonzero((counts > 0) & (tail_s > 0) & served & alone)
    if not len(which):
        return learned.weight
    rate_rps = counts * (1 - learned.drop) / MINUTE_S

    def likelihood(of: np.ndarray, replicas: np.ndarray) -> np.ndarray:
        return service_factor.likelihood(
            latency_model, [jobs[j] for j in of], rate_rps[of], replicas[of], tail_s[of]
        )

    likely = likelihood(which, learned.fewest)
    differ = learned.most[which] > learned.fewest[which]
    if differ.any():  # the replicas of the minute lie between both counts
        likely[differ] += likelihood(which[differ], learned.most)
    weight = learned.weight.copy()
    weight[which] = service_factor.normalised(weight[which] * likely)
    return weight
