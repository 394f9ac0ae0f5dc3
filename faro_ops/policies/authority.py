"""Earned authority: the better the latency model predicts a service's losses, the more Faro may change the service.

In each complete minute, y = 1 - utility is the observed loss. The latency model predicts the loss p at the observed
rate and replicas, and the loss p2 if service times were twice as long. Let q = (p + p2) / 2. Each of two tests gathers
evidence S against a hypothesis. In each minute, the test bets a constant fraction c of S. The bet multiplies S by e:

    doubt test of "E[y] <= p + MARGIN" (the service is not slower than its model):  e = 1 + c (y / (p + MARGIN) - 1)
    trust test of "E[y] >= q" (the service time may be twice as long):              e = 1 + c (q - y) / (1 - q)

S starts at 1. To detect late changes, 1 / HORIZON is added before each bet. After minute t, S is
S_t = (S_{t-1} + 1 / HORIZON) e_t (Shin, Ramdas and Rinaldo, "E-detectors", NEJSDS 2024). If the hypothesis is true,
the mean of e given the past is at most 1 (Waudby-Smith and Ramdas, JRSS B 2024). Then S_t + 1 - t / HORIZON is a
supermartingale that starts at 2. By Ville's inequality, S reaches 2 / ALPHA within HORIZON minutes with probability
at most ALPHA. A doubt test with S >= 2 / ALPHA removes all authority. A trust test with S >= 2 / ALPHA adds a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from faro_lib.policies.protocol import AUTHORITY, HAND_BACK, KEEP_FLOOR, Observation, Plan
from faro_lib.queueing import LatencyModel
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S

LEVELS = (
    "advise",
    "ceilings",
    "one",
    "full",
)  # Faro may change nothing, HPAs' bounds, one replica, or any number
ADVISE, CEILINGS, ONE, FULL = range(len(LEVELS))
ALPHA = (
    0.05  # max. probability that a service loses its level within HORIZON though its model is right
)
HORIZON = 30 * 1440.0  # minutes
MARGIN = 0.04  # tolerated error of the predicted loss
BETS = (
    0.3,
    0.9,
)  # the doubt test averages the evidence of both bets; the trust test makes only the larger bet
INFORMATIVE = 0.2  # trust skips minutes in which a doubled service time adds less than this to the predicted loss
CALM = 0.2  # a minute counts only if the minute before has at most this predicted loss; else a queue may remain
UNIT_ERROR = 20.0  # latency and concurrency that contradict each other by more than this factor have a wrong unit
MAX_STRIKES = 2  # minutes with bad metrics after which the level becomes ADVISE


@dataclass(frozen=True, slots=True)
class Authority:
    """How much Faro may change each service (`level`), and the evidence for this level. Arrays have shape (jobs,)."""

    level: np.ndarray  # index into LEVELS
    doubt_small: (
        np.ndarray
    )  # evidence S of the doubt test (see module docstring) with the smaller bet
    doubt_large: np.ndarray  # evidence S of the doubt test with the larger bet
    trust: np.ndarray  # evidence S of the trust test
    strikes: np.ndarray  # consecutive minutes with frozen or impossible metrics; missing metrics count as half a minute
    running: np.ndarray  # replicas that served at the last update
    mean_latency_s: np.ndarray  # as observed at the last update
    minute: np.ndarray  # `Observation.minute` at the last update, equal for all jobs

    @classmethod
    def none(cls, jobs: int, level: int = ADVISE) -> Self:
        """The authority of `jobs` services at `level`, without any evidence yet."""
        start, zero = np.ones(jobs), np.zeros(jobs)
        return cls(
            np.full(jobs, float(level)),
            start,
            start,
            start,
            zero,
            zero,
            np.full(jobs, np.nan),
            zero,
        )

    @classmethod
    def from_array(cls, columns: np.ndarray) -> Self:
        """Inverse of `to_array()`, for arrays (jobs, fields) such as `Plan.authority`."""
        return cls(*np.asarray(columns, float).T)

    def to_array(self) -> np.ndarray:
        return np.stack([getattr(self, field.name) for field in fields(self)], axis=1)

    @property
    def doubt(self) -> np.ndarray:
        return (self.doubt_small + self.doubt_large) / 2


def with_evidence(
    authority: Authority, jobs: tuple[Job, ...], observation: Observation, model: LatencyModel
) -> Authority:
    """The authority after the last complete minute of the observation; unchanged if that minute is already counted."""
    history, running = observation.arrivals_per_min, observation.running
    served_by = np.minimum(
        running, authority.running
    )  # if the replica count has changed, at least this many served
    if not history.shape[1] or observation.minute <= authority.minute.max():
        return authority
    rate_rps = history[:, -1] / MINUTE_S
    lost = 1 - relaxed_utility(
        np.nan_to_num(observation.tail_latency_s, nan=0.0), arrays_of(jobs).slo_s
    )
    expected, doubled = (
        expected_loss(jobs, rate_rps, served_by, model, slower) for slower in (1.0, 2.0)
    )
    queued = expected_loss(jobs, history[:, -2:][:, 0] / MINUTE_S, served_by, model)
    steady = (running == authority.running) & ~observation.changing & (observation.starting <= 0)
    known = (
        ~np.isnan(observation.tail_latency_s)
        & np.isfinite(rate_rps)
        & (np.nan_to_num(rate_rps) > 0)
    )
    counted = known & (served_by > 0) & (queued <= CALM)
    after = weighed(authority, lost, expected, doubled, counted, counted & steady)
    odd, missing = (
        implausible(authority, jobs, observation),
        np.isnan(rate_rps + observation.mean_latency_s),
    )
    strikes = np.where(odd | missing, after.strikes + odd + 0.5 * (missing & ~odd), 0.0)
    seen = dict(running=running.astype(float), mean_latency_s=observation.mean_latency_s)
    return judged(
        replace(
            after, strikes=strikes, minute=np.full(len(jobs), float(observation.minute)), **seen
        )
    )


def weighed(
    authority: Authority,
    lost: np.ndarray,
    expected: np.ndarray,
    doubled: np.ndarray,
    *counted: np.ndarray,
) -> Authority:
    """The authority with the evidence of one more minute. All arrays have shape (jobs,).

    lost : observed loss. `expected` and `doubled` are the losses predicted at 1 and 2 times the service time.
    counted : two bool arrays. They say whether the minute counts for the doubt test and for the trust test.
    """
    allowed, half_way = np.minimum(expected + MARGIN, 1.0), (expected + doubled) / 2
    small, large = (1 + c * (lost / allowed - 1) for c in BETS)
    trust = 1 + BETS[-1] * (half_way - lost) / np.maximum(1 - half_way, 1e-9)

    def after(before: np.ndarray, e: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.where(where, (before + 1 / HORIZON) * np.maximum(e, 0.0), before)

    return replace(
        authority,
        doubt_small=after(authority.doubt_small, small, counted[0]),
        doubt_large=after(authority.doubt_large, large, counted[0]),
        trust=after(authority.trust, trust, counted[1] & (doubled - expected >= INFORMATIVE)),
    )


def judged(authority: Authority) -> Authority:
    """The authority with new levels. Enough doubt or strikes lead to ADVISE. Otherwise, enough trust adds one level."""
    limit = 2 / ALPHA
    back = (authority.doubt >= limit) | (authority.strikes >= MAX_STRIKES)
    up = ~back & (authority.trust >= limit)
    small, large = (
        np.where(back, 1.0, doubt) for doubt in (authority.doubt_small, authority.doubt_large)
    )
    level = np.where(back, ADVISE, np.minimum(authority.level + up, FULL))
    trust = np.where(back | up, 1.0, authority.trust)
    return replace(authority, level=level, doubt_small=small, doubt_large=large, trust=trust)


def expected_loss(
    jobs: Sequence[Job],
    rate_rps: np.ndarray,
    replicas: np.ndarray,
    model: LatencyModel,
    slower: float = 1.0,
) -> np.ndarray:
    """Expected loss (jobs,) of a minute if each service time is `slower` times as long. A rate of NaN counts as 0.

    The code does not lengthen service times. It multiplies rates and divides SLOs by `slower`, with the same result.
    """
    scaled = [replace(job, slo_s=job.slo_s / slower) for job in jobs]
    rates = np.nan_to_num(rate_rps) * slower
    rows = zip(scaled, rates, replicas)
    return np.array(
        [1 - float(model.expected_utility(job, rate, x, "relaxed", 1.0)) for job, rate, x in rows]
    )


def implausible(
    authority: Authority, jobs: tuple[Job, ...], observation: Observation
) -> np.ndarray:
    """Whether a service's metrics are frozen or in the wrong unit, bool (jobs,).

    Metrics are frozen if count and mean latency equal those of the minute before. A unit seems wrong in three cases:
    (1) The SLO is met at a load above 3 erlangs per replica. (2) Rate x latency and the ongoing requests differ by more
    than a factor of UNIT_ERROR (Little's law). (3) The count and its recent median differ by a factor of about 60.
    """
    history, latency_s = observation.arrivals_per_min, observation.mean_latency_s
    arrays, count = arrays_of(jobs), observation.arrivals_per_min[:, -1]
    rate_rps, busy = count / MINUTE_S, observation.running > 0
    inside, ongoing = rate_rps * latency_s, observation.ongoing
    before = history[:, -2:][:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        frozen = (
            (count > 0)
            & (count == before)
            & (latency_s > 0)
            & (latency_s == authority.mean_latency_s)
        )
        in_time = observation.tail_latency_s <= arrays.slo_s
        impossible = busy & in_time & (rate_rps * arrays.busy_s > 3 * observation.running)
        little = (ongoing >= 5) & (ongoing > UNIT_ERROR * inside) | (
            inside > UNIT_ERROR * np.maximum(ongoing, 1)
        )
        usual = np.median(history[:, :-2], axis=1) if history.shape[1] > 5 else count
        ratio = np.maximum(count, usual) / np.maximum(np.minimum(count, usual), 1)
        jumped = (np.abs(np.log(ratio / MINUTE_S)) < 0.2) & (
            np.maximum(count, usual) >= 2 * MINUTE_S
        )
    return (history.shape[1] > 1) & frozen | impossible | little | jumped


def limited_jobs(
    jobs: tuple[Job, ...], level: np.ndarray, current: np.ndarray, sets_bounds: bool
) -> tuple[Job, ...]:
    """Set replica bounds that keep each job as close to its `current` replicas as its `level` requires.

    sets_bounds : whether plans set HPAs' bounds. Only then may replicas change at the level CEILINGS.
    """

    def bounds(job: Job, level: int, n: int) -> tuple[int, int]:
        if level == FULL or (level == CEILINGS and sets_bounds):
            return job.min_replicas, job.max_replicas
        if level == ONE:
            return min(max(job.min_replicas, n - 1), n), max(min(job.max_replicas, n + 1), n)
        return n, n

    all_bounds = [bounds(*row) for row in zip(jobs, level.astype(int).tolist(), current.tolist())]
    used: dict[str, float] = {}  # cores of the minimum replicas of each tenant's jobs
    for job, (low, _) in zip(jobs, all_bounds):
        used[job.tenant] = used.get(job.tenant, 0.0) + low * job.cores
    # Raise a quota that the minimum replicas exceed, because other autoscalers may have chosen these replicas.
    quotas = (job.tenant_quota and max(job.tenant_quota, used[job.tenant]) for job in jobs)
    rows = zip(jobs, all_bounds, quotas)
    return tuple(
        replace(job, min_replicas=low, max_replicas=high, tenant_quota=q)
        for job, (low, high), q in rows
    )


def limited_plan(plan: Plan, authority: Authority, current: np.ndarray, sets_bounds: bool) -> Plan:
    """Limit a plan to what `authority` allows. The target of a job at ADVISE is its number of `current` replicas.

    sets_bounds : whether plans set HPAs' bounds. If so, the HPA of a job at ADVISE gets its original bounds back. If the
        plan has a `floor`, the HPA of a job at ONE or higher gets `target` as minReplicas and as maxReplicas.
    """
    advised, floor = authority.level == ADVISE, plan.floor
    if sets_bounds:
        of_plan = (
            KEEP_FLOOR if floor is None else np.where(authority.level >= ONE, plan.target, floor)
        )
        floor = np.where(advised, HAND_BACK, of_plan)
    reason = tuple(AUTHORITY if only else was for only, was in zip(advised, plan.reason))
    target = np.where(advised, current, plan.target)
    drop = np.where(authority.level < (CEILINGS if sets_bounds else ONE), 0.0, plan.drop)
    return replace(
        plan, target=target, drop=drop, reason=reason, floor=floor, authority=authority.to_array()
    )
