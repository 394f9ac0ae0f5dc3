"""Earned authority: the better the latency model predicts a service's losses, the more Faro may do.

In each complete minute, y = 1 - utility is the observed loss. The latency model predicts the loss p
at the observed rate and replicas, and the loss p2 if service times were twice as long. Let
q = (p + p2) / 2. Each of two tests gathers evidence S against a hypothesis. In each minute, the
test bets a constant fraction c of S. The bet multiplies S by e:

    doubt test of "E[y] <= p + MARGIN" (the service is not slower than its model):
        e = 1 + c (y / (p + MARGIN) - 1)
    trust test of "E[y] >= q" (the service time may be twice as long):
        e = 1 + c (q - y) / (1 - q)

S starts at 1. To detect late changes, 1 / HORIZON is added before each bet. After minute t, S is
S_t = (S_{t-1} + 1 / HORIZON) e_t (Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2024). If the
hypothesis is true, the mean of e given the past is at most 1 (Waudby-Smith and Ramdas, JRSS B
2024). Then S_t + 1 - t / HORIZON is a supermartingale that starts at 2. By Ville's inequality, S
reaches 2 / ALPHA within HORIZON minutes with probability at most ALPHA. A doubt test with
S >= 2 / ALPHA removes all authority. A trust test with S >= 2 / ALPHA adds a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from faro_lib.policies.faro import Faro
from faro_lib.protocol import Observation, Plan, Policy, Wrapper
from faro_lib.queueing import LatencyModel
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import with_bounds
from faro_ops.operate.limits.bounds import (
    HAND_BACK,
    KEEP_FLOOR,
    AsBounds,
    predicting,
    replicas_of_hpas,
)
from faro_ops.protocol import AUTHORITY, LivePlan, live_plan

# Faro may change nothing, the bounds of HPAs, one replica, or any number of replicas.
LEVELS = ("advise", "ceilings", "one", "full")
ADVISE, CEILINGS, ONE, FULL = range(len(LEVELS))
# Highest probability that a service loses its level within HORIZON although its model is right.
ALPHA = 0.05
HORIZON = 30 * 1440.0  # minutes
MARGIN = 0.04  # tolerated error of the predicted loss
# The doubt test averages the evidence of both bets; the trust test makes only the larger bet.
BETS = (0.3, 0.9)
# Trust skips minutes in which a doubled service time adds less than this to the predicted loss.
INFORMATIVE = 0.2
# A minute counts only if the minute before has at most this predicted loss; else a queue may
# remain.
CALM = 0.2
# Latency and concurrency that contradict each other by more than this factor have a wrong unit.
UNIT_ERROR = 20.0
MAX_STRIKES = 2  # minutes with bad metrics after which the level becomes ADVISE


@dataclass(frozen=True, slots=True)
class Authority:
    """How far Faro may change each service (`level`), and the evidence for it; arrays (jobs,)."""

    level: np.ndarray  # index into LEVELS
    # Evidence S of the doubt test (see the module's docstring) with the smaller and larger bet.
    doubt_small: np.ndarray
    doubt_large: np.ndarray
    trust: np.ndarray  # evidence S of the trust test
    # Consecutive minutes with frozen or impossible metrics. A minute without metrics counts half.
    strikes: np.ndarray
    running: np.ndarray  # replicas that served at the last update
    mean_latency_s: np.ndarray  # as observed at the last update
    minute: np.ndarray  # `Observation.minute` at the last update, equal for all jobs

    @classmethod
    def none(cls, jobs: int, level: int = ADVISE) -> Self:
        """The authority of `jobs` services at `level`, without any evidence yet."""
        return cls(
            level=np.full(jobs, float(level)),
            doubt_small=np.ones(jobs),
            doubt_large=np.ones(jobs),
            trust=np.ones(jobs),
            strikes=np.zeros(jobs),
            running=np.zeros(jobs),
            mean_latency_s=np.full(jobs, np.nan),
            minute=np.zeros(jobs),
        )

    @classmethod
    def from_array(cls, columns: np.ndarray) -> Self:
        """Inverse of `to_array()`, for arrays (jobs, fields) such as `LivePlan.authority`."""
        return cls(*np.asarray(columns, float).T)

    def to_array(self) -> np.ndarray:
        return np.stack([getattr(self, field.name) for field in fields(self)], axis=1)

    @property
    def doubt(self) -> np.ndarray:
        return (self.doubt_small + self.doubt_large) / 2


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """The state of `WithAuthority`."""

    inner: Any  # of the wrapped policy
    authority: Authority
    # Whether `authority` is what the last leader knew. Until it is, the policy changes nothing.
    known: bool = True


@dataclass(frozen=True, slots=True)
class WithAuthority(Wrapper):
    """A policy that changes each job only as far as Faro has earned."""

    earned: Authority  # at the start
    latency_model: LatencyModel  # whose predictions are tested, if nothing is learned

    @classmethod
    def of(cls, policy: Policy, earned: Authority) -> Self:
        """`policy` with this authority; ValueError if it is neither a `Faro` nor its bounds."""
        faro = policy.policy if isinstance(policy, AsBounds) else predicting(policy)
        return cls(policy, earned, faro.latency_model)

    @property
    def sets_bounds(self) -> bool:
        """Whether plans are bounds of HPAs; targets are then the HPAs' maxReplicas."""
        return isinstance(self.policy, AsBounds)

    def start(self, jobs: tuple[Job, ...]) -> AuthorityState:
        return AuthorityState(self.policy.start(jobs), self.earned)

    def _model(self, state: AuthorityState) -> LatencyModel:
        """The model whose predictions are tested.

        It has the service times as learned before the minute that is predicted.
        """
        faro = self.policy.policy if isinstance(self.policy, AsBounds) else self.policy
        if not isinstance(faro, Faro) or faro.learner is None:
            return self.latency_model
        return faro.informed(state.inner).latency_model

    def decide(
        self, state: AuthorityState, observation: Observation
    ) -> tuple[AuthorityState, LivePlan]:
        jobs = state.inner.jobs
        authority = with_evidence(state.authority, jobs, observation, self._model(state))
        current = replicas_of_hpas(observation) if self.sets_bounds else observation.target
        limited = limited_jobs(jobs, authority.level, current, self.sets_bounds)
        # A job that Faro may not change has its current replicas as minimum. Together, they may
        # exceed a reduced capacity.
        arrays = arrays_of(limited)
        capacity = max(observation.capacity, float(arrays.min_replicas @ arrays.cores))
        inner, plan = self.policy.decide(
            replace(state.inner, jobs=limited), replace(observation, capacity=capacity)
        )
        inner = replace(inner, jobs=jobs)
        if not state.known:
            return replace(state, inner=inner), unchanged_plan(plan, observation, self.sets_bounds)
        state = AuthorityState(inner, authority)
        return state, limited_plan(plan, authority, current, self.sets_bounds)


def with_evidence(
    authority: Authority, jobs: tuple[Job, ...], observation: Observation, model: LatencyModel
) -> Authority:
    """The authority after the last complete minute; unchanged if it is already counted."""
    history, running = observation.arrivals_per_min, observation.running
    if not history.shape[1] or observation.minute <= authority.minute.max():
        return authority
    # If the replica count has changed, at least this many served.
    served_by = np.minimum(running, authority.running)
    rate_rps = history[:, -1] / MINUTE_S
    rate_before_rps = history[:, -2:][:, 0] / MINUTE_S
    tail_s = observation.tail_latency_s
    lost = 1 - relaxed_utility(np.nan_to_num(tail_s, nan=0.0), arrays_of(jobs).slo_s)
    expected = expected_loss(jobs, rate_rps, served_by, model)
    doubled = expected_loss(jobs, rate_rps, served_by, model, slower=2.0)
    queued = expected_loss(jobs, rate_before_rps, served_by, model)

    known = ~np.isnan(tail_s) & np.isfinite(rate_rps) & (np.nan_to_num(rate_rps) > 0)
    counted = known & (served_by > 0) & (queued <= CALM)
    unchanged = (running == authority.running) & (observation.starting <= 0)
    steady = unchanged & ~observation.changing
    after = weighed(authority, lost, expected, doubled, counted, counted & steady)

    odd = implausible(authority, jobs, observation)
    missing = np.isnan(rate_rps + observation.mean_latency_s)
    strikes = after.strikes + odd + 0.5 * (missing & ~odd)
    after = replace(
        after,
        strikes=np.where(odd | missing, strikes, 0.0),
        running=running.astype(float),
        mean_latency_s=observation.mean_latency_s,
        minute=np.full(len(jobs), float(observation.minute)),
    )
    return judged(after)


def weighed(
    authority: Authority,
    lost: np.ndarray,
    expected: np.ndarray,
    doubled: np.ndarray,
    counts_for_doubt: np.ndarray,
    counts_for_trust: np.ndarray,
) -> Authority:
    """The authority with the evidence of one more minute. All arrays have shape (jobs,).

    lost : observed loss. `expected` and `doubled` are the losses predicted at 1 and 2 times the
        service time.
    counts_for_doubt, counts_for_trust : whether the minute counts for each test, bool.
    """
    allowed = np.minimum(expected + MARGIN, 1.0)
    half_way = (expected + doubled) / 2
    small, large = (1 + c * (lost / allowed - 1) for c in BETS)
    trust = 1 + BETS[-1] * (half_way - lost) / np.maximum(1 - half_way, 1e-9)
    informative = doubled - expected >= INFORMATIVE

    def after(before: np.ndarray, e: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.where(where, (before + 1 / HORIZON) * np.maximum(e, 0.0), before)

    return replace(
        authority,
        doubt_small=after(authority.doubt_small, small, counts_for_doubt),
        doubt_large=after(authority.doubt_large, large, counts_for_doubt),
        trust=after(authority.trust, trust, counts_for_trust & informative),
    )


def judged(authority: Authority) -> Authority:
    """The authority with new levels.

    Enough doubt or strikes lead to ADVISE. Otherwise, enough trust adds one level.
    """
    limit = 2 / ALPHA
    back = (authority.doubt >= limit) | (authority.strikes >= MAX_STRIKES)
    up = ~back & (authority.trust >= limit)
    return replace(
        authority,
        level=np.where(back, ADVISE, np.minimum(authority.level + up, FULL)),
        doubt_small=np.where(back, 1.0, authority.doubt_small),
        doubt_large=np.where(back, 1.0, authority.doubt_large),
        trust=np.where(back | up, 1.0, authority.trust),
    )


def expected_loss(
    jobs: Sequence[Job],
    rate_rps: np.ndarray,
    replicas: np.ndarray,
    model: LatencyModel,
    slower: float = 1.0,
) -> np.ndarray:
    """Expected loss (jobs,) of a minute if each service time is `slower` times as long.

    A rate of NaN counts as 0. The code does not lengthen service times: it multiplies rates and
    divides SLOs by `slower`, with the same result.
    """
    scaled = [replace(job, slo_s=job.slo_s / slower) for job in jobs]
    rates = np.nan_to_num(rate_rps) * slower
    rows = zip(scaled, rates, replicas)
    utility = [float(model.expected_utility(job, rate, x, "relaxed", 1.0)) for job, rate, x in rows]
    return 1 - np.array(utility)


def implausible(
    authority: Authority, jobs: tuple[Job, ...], observation: Observation
) -> np.ndarray:
    """Whether a service's metrics are frozen or in the wrong unit, bool (jobs,).

    Metrics are frozen if count and mean latency equal those of the minute before. A unit seems
    wrong in three cases: (1) The SLO is met at a load above 3 erlangs per replica. (2) Rate x
    latency and the ongoing requests differ by more than a factor of UNIT_ERROR (Little's law).
    (3) The count and its recent median differ by a factor of about 60.
    """
    history, latency_s = observation.arrivals_per_min, observation.mean_latency_s
    ongoing, arrays = observation.ongoing, arrays_of(jobs)
    count = history[:, -1]
    count_before = history[:, -2:][:, 0]
    rate_rps = count / MINUTE_S
    in_system = rate_rps * latency_s  # by Little's law
    with np.errstate(invalid="ignore", divide="ignore"):
        same_count = (count > 0) & (count == count_before)
        same_latency = (latency_s > 0) & (latency_s == authority.mean_latency_s)
        frozen = same_count & same_latency

        served = (observation.running > 0) & (observation.tail_latency_s <= arrays.slo_s)
        impossible = served & (rate_rps * arrays.busy_s > 3 * observation.running)

        too_many = (ongoing >= 5) & (ongoing > UNIT_ERROR * in_system)
        too_few = in_system > UNIT_ERROR * np.maximum(ongoing, 1)

        usual = np.median(history[:, :-2], axis=1) if history.shape[1] > 5 else count
        larger = np.maximum(count, usual)
        ratio = larger / np.maximum(np.minimum(count, usual), 1)
        jumped = (np.abs(np.log(ratio / MINUTE_S)) < 0.2) & (larger >= 2 * MINUTE_S)
    if history.shape[1] <= 1:
        return impossible | too_many | too_few | jumped
    return frozen | impossible | too_many | too_few | jumped


def limited_jobs(
    jobs: tuple[Job, ...], level: np.ndarray, current: np.ndarray, sets_bounds: bool
) -> tuple[Job, ...]:
    """Set replica bounds that keep each job as near to its `current` replicas as its `level` asks.

    sets_bounds : whether plans set HPAs' bounds. Only then may replicas change at CEILINGS.
    """

    def bounds(job: Job, level: int, n: int) -> tuple[int, int]:
        if level == FULL or (level == CEILINGS and sets_bounds):
            return job.min_replicas, job.max_replicas
        if level == ONE:
            low = min(max(job.min_replicas, n - 1), n)
            high = max(min(job.max_replicas, n + 1), n)
            return low, high
        return n, n

    all_bounds = [bounds(*row) for row in zip(jobs, level.astype(int).tolist(), current.tolist())]
    return with_bounds(jobs, *zip(*all_bounds))


def limited_plan(
    plan: Plan, authority: Authority, current: np.ndarray, sets_bounds: bool
) -> LivePlan:
    """Limit a plan to what `authority` allows.

    A job at ADVISE is left to whoever scales it: its target is its number of `current` replicas.

    sets_bounds : whether plans set HPAs' bounds. If so, the HPA of a job at ADVISE gets its
        original bounds back. If the plan has a `floor`, the HPA of a job at ONE or higher gets
        `target` as minReplicas and as maxReplicas.
    """
    limited = live_plan(plan)
    advised = authority.level == ADVISE
    floor = limited.floor
    if sets_bounds:
        at_target = authority.level >= ONE
        of_plan = KEEP_FLOOR if floor is None else np.where(at_target, plan.target, floor)
        floor = np.where(advised, HAND_BACK, of_plan)
    reason = tuple(AUTHORITY if only else was for only, was in zip(advised, plan.reason))
    may_drop = authority.level >= (CEILINGS if sets_bounds else ONE)
    return replace(
        limited,
        target=np.where(advised, current, plan.target),
        drop=np.where(may_drop, plan.drop, 0.0),
        reason=reason,
        left=advised,
        floor=floor,
        authority=authority.to_array(),
    )


def unchanged_plan(plan: Plan, observation: Observation, sets_bounds: bool) -> LivePlan:
    """The forecasts of a plan, but no change: targets, drop rates and bounds stay as observed.

    No HPA gets its original bounds back, because Faro may have earned more than it knows now.
    """
    jobs = len(plan.target)
    return replace(
        live_plan(plan),
        target=observation.target,
        drop=observation.drop,
        reason=(AUTHORITY,) * jobs,
        left=np.ones(jobs, bool),
        floor=np.full(jobs, KEEP_FLOOR) if sets_bounds else None,
        authority=None,
    )
