"""What a policy learns about service times while services run.

A `Learner` turns the evidence of each complete minute (`policies.evidence`) into a posterior of the
factor between true and assumed service times (`queueing.service_factor`):

- An informative minute multiplies the belief by the likelihood of its latency, and by that of its
  busy seconds where the platform measures them. The busy seconds outweigh the latency: they are
  those of a slower service only if it is slower, and not if its requests wait for another reason.
- In any other minute, the counts of served and refused requests are bounds on the factor. They
  fade within minutes, end with the next informative minute, and are not part of what is saved.
  Unless there are both bounds, the belief fades towards the assumed times.
- If a service misses its SLO with fewer replicas than those with which it last met the SLO at this
  load, the belief may be wrong, and may be what keeps the replicas away that would refute it. If no
  count of served requests can refute it either, decisions use the assumed times for some minutes
  (`Doubt`).

Of services that share replicas, it learns a factor of the pool and one of each service
(`policies.pool_learning`).
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from faro_lib.policies import pool_learning
from faro_lib.policies.evidence import Evidence, Replicas, evidence_of, of_units
from faro_lib.policies.pool_learning import SharedFactors
from faro_lib.policies.raised import Raised
from faro_lib.protocol import Observation
from faro_lib.queueing import LatencyModel, service_factor
from faro_lib.sharing.units import units_of
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S

UNKNOWN_ERROR = 0.3  # relative standard error of a service time that nobody has stated
CHANGED = 0.5  # probability of a new factor after a roll-out
MOST_MISSED = 240  # minutes without observations that are caught up one by one
HALF_LIFE_MINUTES = 30.0  # of a belief without informative minutes
BOUNDS_KEPT = 0.5 ** (1 / 5)  # share of what the counts say that is left after a minute
LEAST_BOUND = 1e-6  # smallest likelihood that the counts give a factor, so that none is excluded
MISSED_MINUTES = 2  # in a row without the SLO, before a trial of the assumed times begins
TRIAL_MINUTES = 5
FIRST_PAUSE_MINUTES = 5  # after a trial that did not help; each further pause is twice as long
LONGEST_PAUSE_MINUTES = 160
SAME_LOAD = 1.1  # largest ratio between two loads that count as the same


@dataclass(frozen=True, slots=True)
class Doubt:
    """When a belief is doubted, and the assumed times are tried instead; arrays (jobs,).

    A service is healthy in an informative minute that meets the SLO. `rate_rps` and `replicas` are
    those of its last healthy minute, 0 before the first.
    """

    rate_rps: np.ndarray
    replicas: np.ndarray
    missed: np.ndarray  # minutes in a row in which the service missed its SLO with fewer replicas
    left: np.ndarray  # minutes for which the assumed times are still tried; 0: the belief acts
    pause: np.ndarray  # minutes until another trial may begin
    next_pause: np.ndarray  # length of the pause after the next trial

    @classmethod
    def start(cls, jobs: int) -> "Doubt":
        none = np.zeros(jobs)
        return cls(none, none, none, none, none, none + FIRST_PAUSE_MINUTES)

    def after(self, evidence: Evidence) -> "Doubt":
        """The doubts after a minute."""
        healthy = evidence.met_slo
        fewer = evidence.most < self.replicas
        same_load = ~(evidence.rate_rps > SAME_LOAD * self.rate_rps)
        untold = ~evidence.informative & np.isnan(evidence.served_per_min)
        missed = np.where(evidence.missed_slo & untold & fewer & same_load, self.missed + 1, 0)
        running = self.left > 0
        left = np.maximum(self.left - 1, 0)
        ended = running & (left == 0)
        pause = np.where(ended, self.next_pause, np.maximum(self.pause - 1, 0))
        longer = np.minimum(2 * self.next_pause, LONGEST_PAUSE_MINUTES)
        next_pause = np.where(ended, longer, self.next_pause)
        begins = (missed >= MISSED_MINUTES) & (left == 0) & (pause == 0)
        left = np.where(begins, TRIAL_MINUTES, left)
        return Doubt(
            np.where(healthy, evidence.rate_rps, self.rate_rps),
            np.where(healthy, evidence.most, self.replicas),
            np.where(begins, 0, missed),
            np.where(healthy, 0, left),
            np.where(healthy, 0, pause),
            np.where(healthy, FIRST_PAUSE_MINUTES, next_pause),
        )


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of the jobs' service times after some observations."""

    # (jobs, factors), posteriors over `service_factor.FACTORS`: from informative minutes, and
    # before any of them.
    weight: np.ndarray
    prior: np.ndarray
    minute: int  # complete minutes at the last observation
    replicas: Replicas  # in the current minute
    # (jobs, factors), likelihood of the counts since the last informative minute, at most 1.
    bounds: np.ndarray
    doubt: Doubt
    raised: Raised
    informative: np.ndarray  # (jobs,) number of the minutes behind `weight`
    since_minute: np.ndarray  # (jobs,) the first of them; NaN without any
    # Of jobs that share replicas, the posteriors above are those of their own factors, and these
    # are those of their pools.
    pools: SharedFactors

    @classmethod
    def start(cls, prior: np.ndarray, jobs: tuple[Job, ...] = ()) -> Self:
        """What is known before any observation; `jobs` are needed if some share replicas."""
        count = len(prior)
        return cls(
            weight=prior,
            prior=prior,
            minute=0,
            replicas=Replicas.start(count),
            bounds=np.ones_like(prior),
            doubt=Doubt.start(count),
            raised=Raised.start(count),
            informative=np.zeros(count),
            since_minute=np.full(count, np.nan),
            pools=SharedFactors.start(jobs),
        )

    @property
    def belief(self) -> np.ndarray:
        """The posterior (jobs, factors) with which decisions are made."""
        bounded = self.pools.belief(service_factor.normalised(self.weight * self.bounds))
        return np.where(self.doubt.left[:, None] > 0, self.prior, bounded)


@dataclass(frozen=True, slots=True)
class Learner:
    """Learns the factors between true and assumed service times from latencies."""

    drift: float = 0.01  # standard deviation of the change of a log factor in a minute
    change: float = 1e-3  # probability per minute that the factor becomes any other

    def start(self, jobs: tuple[Job, ...]) -> Learned:
        stated = np.array([job.service_time_error or UNKNOWN_ERROR for job in jobs])
        return Learned.start(service_factor.prior(stated), jobs)

    def updated(
        self,
        jobs: tuple[Job, ...],
        learned: Learned,
        observation: Observation,
        latency_model: LatencyModel,
    ) -> Learned:
        """What is known after this observation; `latency_model` assumes the stated times."""
        replicas = learned.replicas.seen(of_units(jobs, observation))
        learned = replace(learned, replicas=replicas)
        passed = observation.minute - learned.minute
        if passed <= 0:
            return learned
        change = np.full(len(jobs), self.change)
        for _ in range(min(passed, MOST_MISSED) - 1):
            learned = _without_evidence(self._drifted(learned, change))
        learned = self._drifted(learned, change)
        met_slo = np.zeros(len(jobs), bool)
        if passed == 1:
            evidence = evidence_of(jobs, observation, replicas, latency_model)
            learned = with_evidence(jobs, learned, evidence, latency_model)
            met_slo = evidence.met_slo
        else:  # nobody has seen the replicas of the last minute
            learned = _without_evidence(learned)
        factor = service_factor.mean_factor(learned.belief)
        return replace(
            learned,
            raised=learned.raised.after(factor, met_slo, observation.target),
            minute=observation.minute,
            replicas=replicas.next_minute(),
        )

    def _drifted(self, learned: Learned, change: np.ndarray) -> Learned:
        weight = service_factor.drifted(learned.weight, self.drift, change)
        pools = learned.pools.drifted(self.drift, self.change)
        return replace(learned, weight=weight, pools=pools)

    def changed(self, learned: Learned, jobs: np.ndarray) -> Learned:
        """What is still known after a roll-out of some jobs, bool (jobs,)."""
        change = np.where(jobs, CHANGED, 0.0)
        none, names = Doubt.start(len(jobs)), [field.name for field in fields(Doubt)]
        doubt = Doubt(
            *(np.where(jobs, getattr(none, name), getattr(learned.doubt, name)) for name in names)
        )
        return replace(
            learned,
            weight=service_factor.drifted(learned.weight, 0.0, change),
            bounds=np.where(jobs[:, None], 1.0, learned.bounds),
            replicas=replace(learned.replicas, unsteady=learned.replicas.unsteady | jobs),
            doubt=doubt,
            raised=learned.raised.forgotten(jobs),
            pools=learned.pools.changed(jobs, CHANGED),
        )

    def mean_factors(self, learned: Learned) -> np.ndarray:
        """The factor of each job with which decisions about pools are made, (jobs,)."""
        return learned.pools.beyond_doubt(service_factor.mean_factor(learned.belief))

    def factors(self, learned: Learned, count: int) -> np.ndarray:
        """Equally likely factors of each job, (jobs, count)."""
        probabilities = (np.arange(count) + 0.5) / count
        return service_factor.quantile_factors(learned.belief, probabilities)


def with_evidence(
    jobs: tuple[Job, ...], learned: Learned, evidence: Evidence, latency_model: LatencyModel
) -> Learned:
    """What is known after the evidence of a minute."""
    tells = evidence.informative
    # The counts of an overloaded minute bound the factor from below and from above.
    bounded = evidence.overloaded & ~np.isnan(evidence.served_per_min)
    known = (tells | bounded)[:, None]
    weight = np.where(known, learned.weight, _faded(learned.weight, learned.prior))
    alone = ~units_of(jobs).shares
    likely = latency_likelihood(jobs, evidence, tells & alone, evidence.tail_s, latency_model)
    pools, of_shared = pool_learning.after_minute(
        learned.pools,
        jobs,
        learned.weight,
        evidence,
        latency_model,
        bounds_kept=BOUNDS_KEPT,
        least_bound=LEAST_BOUND,
        half_life_minutes=HALF_LIFE_MINUTES,
    )
    busy = measured_likelihood(jobs, evidence, latency_model)
    likely = likely * np.where(alone[:, None], busy, 1.0)
    weight = service_factor.normalised(weight * likely * of_shared)
    pools, weight = pools.levelled(weight)

    lost_s = np.full(len(jobs), np.inf)
    overloaded = evidence.overloaded & alone
    overload = latency_likelihood(jobs, evidence, overloaded, lost_s, latency_model)
    work = served_likelihood(jobs, evidence, latency_model)
    bounds = learned.bounds**BOUNDS_KEPT * overload * work
    bounds = np.maximum(bounds / bounds.max(axis=1, keepdims=True), LEAST_BOUND)
    return replace(
        learned,
        weight=weight,
        bounds=np.where(tells[:, None], 1.0, bounds),
        doubt=learned.doubt.after(evidence),
        informative=learned.informative + tells,
        since_minute=np.where(
            tells & np.isnan(learned.since_minute), learned.minute, learned.since_minute
        ),
        pools=pools,
    )


def latency_likelihood(
    jobs: tuple[Job, ...],
    evidence: Evidence,
    which: np.ndarray,
    tail_s: np.ndarray,
    latency_model: LatencyModel,
) -> np.ndarray:
    """Likelihood (jobs, factors) of the latency quantiles `tail_s` (jobs,), inf = overload.

    which : bool (jobs,); 1 for the other jobs.
    """
    likely = np.ones((len(jobs), len(service_factor.FACTORS)))
    chosen = np.flatnonzero(which)
    if not len(chosen):
        return likely

    def at(of: np.ndarray, replicas: np.ndarray) -> np.ndarray:
        return service_factor.likelihood(
            latency_model, [jobs[j] for j in of], evidence.rate_rps[of], replicas[of], tail_s[of]
        )

    likely[chosen] = at(chosen, evidence.fewest)
    differ = chosen[evidence.most[chosen] > evidence.fewest[chosen]]
    if len(differ):  # the replicas of the minute lie between both counts
        likely[differ] += at(differ, evidence.most)
        likely[differ] /= 2
    return likely


def measured_likelihood(
    jobs: tuple[Job, ...], evidence: Evidence, latency_model: LatencyModel
) -> np.ndarray:
    """Likelihood (jobs, factors) of the busy seconds per request; 1 where they tell nothing.

    Requests that fail may take less time, so only minutes in which nothing was wrong count.
    """
    counts = evidence.informative | evidence.overloaded
    arrived = MINUTE_S * evidence.rate_rps
    served = np.where(np.isnan(evidence.served_per_min), arrived, evidence.served_per_min)
    busy_s = np.where(counts, evidence.busy_s, np.nan)
    saturated_s = latency_model.saturated_s(jobs)
    return service_factor.busy_likelihood(saturated_s, busy_s, np.nan_to_num(served))


def served_likelihood(
    jobs: tuple[Job, ...], evidence: Evidence, latency_model: LatencyModel
) -> np.ndarray:
    """Likelihood (jobs, factors) of the requests that were served.

    It is 1 for a job without a count, and for jobs that share replicas (`pool_learning`).
    """
    likely = np.ones((len(jobs), len(service_factor.FACTORS)))
    counted = (evidence.served_per_min > 0) & ~units_of(jobs).shares
    chosen = np.flatnonzero(counted)
    if len(chosen):
        saturated_s = latency_model.saturated_s([jobs[j] for j in chosen])
        served, most = evidence.served_per_min[chosen], evidence.most[chosen]
        likely[chosen] = service_factor.work_likelihood(saturated_s, served, most)
    return likely


def _without_evidence(learned: Learned) -> Learned:
    weight = _faded(learned.weight, learned.prior)
    return replace(learned, weight=weight, pools=learned.pools.faded(HALF_LIFE_MINUTES))


def _faded(weight: np.ndarray, prior: np.ndarray) -> np.ndarray:
    return service_factor.faded(weight, prior, HALF_LIFE_MINUTES)
