"""Faro: forecast sample paths of requests, tabulate expected utilities, and solve the allocation exactly."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from faro_lib.allocate import OBJECTIVES, marginal_values, solve
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.forecast.nowcast import nowcast
from faro_lib.policies.factories import PolicyContext, register, register_family
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.policies.protocol import DECILES, PLAN_ATTEMPTS, Observation, Plan, Policy, reasons
from faro_lib.queueing import Formula, LatencyModel, model_of
from faro_lib.utility import (
    DROPS,
    UtilityTable,
    build_table,
    predicted_latency,
    with_switching_cost,
)
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_ops.policies.authority import Authority, limited_jobs, limited_plan, with_evidence

IDLE = 0.05  # utilisation of replicas that are idle most of the time
FALLBACK_MODEL = "mgc"  # latency model if there is no measured table
FLOOR_TOLERANCE = 0.02  # utility that a job may lose with minReplicas instead of the planned replicas (docs/adopt.md)
LOAD_QUANTILES = (
    0.1,
    0.95,
)  # quantiles of the forecast load that set an HPA's minReplicas and maxReplicas
# Highest utilisation at which an HPA with the default target of 80 % and tolerance of 10 % adds no replica.
HELD_UTILISATION = 0.88
PRIOR_LOST = 2.0  # added to lost utilities in `deficit_weighted`, so that the first losses do not dominate the weights

# Tuned on days 9 and 10 of the published traces, with a forecaster fitted to days 1 to 8 (docs/tuning.md).
TUNED_DEFAULTS = dict(
    first_s=10.0,
    interval_s=60.0,
    phase_s=50.0,
    nowcast=True,
    cold_start_minutes=2.0,
    switching_cost=0.01,
    reserve=True,
)
TUNED_FOR_FAIRNESS = dict(switching_cost=0.06, gamma=1.0, deficit_weighting=1.0)


@dataclass(frozen=True, slots=True)
class Faro(TwoLoops):
    """Choose the replica counts that maximise an objective (e.g. the sum) of the utilities expected for the forecast load.

    `TwoLoops` calls `plan` at every long-term decision. `forecaster` and the times of decisions are its fields.
    """

    name: str = "Faro-Sum"
    objective: str = "Sum"  # a name in `allocate.OBJECTIVES`
    latency_model: LatencyModel = Formula("half-mmc")
    samples: int = 100  # sample paths of a forecast
    horizon_minutes: int = HORIZON_MINUTES
    nowcast: bool = False  # whether the forecast uses the count of the current minute
    cold_start_minutes: float = (
        1.0  # minutes during which only the old replicas of a growing job serve
    )
    switching_cost: float = 0.0  # utility subtracted for changing a job's replica count
    gamma: float | None = (
        None  # FairSum and PenaltyFairSum subtract gamma (max - min utility); None = number of jobs
    )
    deficit_weighting: float = 0.0  # exponent in `deficit_weighted`; 0 ignores past losses
    reserve: bool = (
        False  # whether idle cores go to jobs that would have used them on the training days
    )
    least_gain: float = (
        0.0  # a job gets no more replicas once its utility is within `least_gain` of its maximum
    )
    floor_tolerance: float | None = (
        None  # utility a job may lose at minReplicas; None = plan replicas, not HPA bounds
    )
    earned: Authority | None = (
        None  # initial authority over each job; None = Faro may change every job freely
    )

    @property
    def sets_bounds(self) -> bool:
        """Whether plans are bounds of HPAs. Targets, observed and planned, are then the HPAs' maxReplicas."""
        return self.floor_tolerance is not None

    def current_replicas(self, observation: Observation) -> np.ndarray:
        """The replicas that each job has or has requested, (jobs,)."""
        return (
            observation.running + observation.starting if self.sets_bounds else observation.target
        )

    def start(self, jobs: tuple[Job, ...]) -> LoopState:
        return replace(
            TwoLoops.start(self, jobs), authority=self.earned
        )  # a class with slots has no plain super()

    def decide(self, state: LoopState, observation: Observation) -> tuple[LoopState, Plan]:
        """Decide as `TwoLoops`, but change each job only as far as Faro has earned (`Authority`, updated first)."""
        if state.authority is None:
            return TwoLoops.decide(self, state, observation)
        authority = with_evidence(state.authority, state.jobs, observation, self.latency_model)
        current = self.current_replicas(observation)
        jobs = limited_jobs(state.jobs, authority.level, current, self.sets_bounds)
        # A job that Faro may not change has its current replicas as minimum. These may exceed a reduced capacity.
        capacity = max(
            observation.capacity, float(arrays_of(jobs).min_replicas @ arrays_of(jobs).cores)
        )
        after, plan = TwoLoops.decide(
            self, replace(state, jobs=jobs), replace(observation, capacity=capacity)
        )
        return replace(after, jobs=state.jobs, authority=authority), limited_plan(
            plan, authority, current, self.sets_bounds
        )

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        """The optimal allocation for the forecast, with its predictions and marginal values, or bounds of HPAs around it."""
        current, capacity = self.current_replicas(observation), observation.capacity
        rates_rps = (
            self.forecast_paths(state, observation) / MINUTE_S * observation.exists[:, None, None]
        )
        expected = self.expected_utilities(state.jobs, rates_rps, current, capacity)
        costed = with_switching_cost(expected, self.switching_cost)
        weighted = deficit_weighted(costed, state.lost, self.deficit_weighting)
        allocation = solve(weighted, capacity, self.objective, current=current, gamma=self.gamma)
        if (
            self.reserve and not self.sets_bounds and state.forecaster.past.size
        ):  # drop rates stay as allocated
            replicas = self.with_reserve(state, observation, expected, allocation.replicas)
            allocation = replace(allocation, replicas=replicas)
        target, forecast_rps = allocation.replicas, rates_rps.mean(axis=(1, 2))
        latency_s = predicted_latency(
            state.jobs, forecast_rps, target, drop=allocation.drop, latency_model=self.latency_model
        )
        value_up, value_down = marginal_values(weighted, allocation, gamma=self.gamma)
        plan = Plan(
            target=target,
            drop=allocation.drop,
            reason=reasons(target, current),
            attempts=PLAN_ATTEMPTS,
            forecast_rps=forecast_rps,
            predicted_tail_latency_s=latency_s,
            next_minute_deciles_rps=np.quantile(
                rates_rps[:, :, min(1, self.horizon_minutes - 1)], DECILES, axis=1
            ).T,
            marginal_value_up=value_up,
            marginal_value_down=value_down,
        )
        if self.floor_tolerance is None:
            return plan
        load = (
            np.quantile(rates_rps, LOAD_QUANTILES, axis=(1, 2))
            * arrays_of(state.jobs).busy_s
        )
        floor, ceiling = bounds(expected, target, load, capacity, self.floor_tolerance)
        return replace(
            plan, target=ceiling, floor=floor, reason=reasons(ceiling, observation.target)
        )

    def with_reserve(
        self,
        state: LoopState,
        observation: Observation,
        expected: UtilityTable,
        planned: np.ndarray,
    ) -> np.ndarray:
        """The `planned` replicas (jobs,), with idle cores given to jobs that would have used them on the training days.

        A core is idle if no planned replica uses it, or if the replica on it does not raise the `expected` utility.
        Idle cores are allocated to maximise the sum of the jobs' mean utilities over the minutes of `Forecaster.past`.
        If the forecast misses a burst like those of the training days, replicas for it are already running.
        """
        jobs, arrays = state.jobs, arrays_of(state.jobs)
        utility = expected.effective  # with the penalty for drops, if the objective has one
        planned_utility = np.take_along_axis(utility, planned[:, None], axis=1)
        needed = (utility >= planned_utility - TOLERANCE).argmax(
            axis=1
        )  # the lowest count with this utility
        if observation.capacity - needed @ arrays.cores < arrays.cores.min() - TOLERANCE:
            return planned
        past_rps = state.forecaster.past / MINUTE_S * observation.exists[:, None]
        return with_idle_cores(
            jobs, needed, past_rps, observation.capacity, self.latency_model, observation.target
        )

    def forecast_paths(self, state: LoopState, observation: Observation) -> np.ndarray:
        """Sample paths of requests per minute from the current minute on, with shape (jobs, samples, minutes)."""
        elapsed_s = observation.now_s - MINUTE_S * observation.minute
        if not self.nowcast or observation.arrivals_now is None or not 0 < elapsed_s <= MINUTE_S:
            return state.forecaster.sample(self.horizon_minutes, self.samples)
        elapsed = elapsed_s / MINUTE_S
        return nowcast(
            state.forecaster, observation.arrivals_now, elapsed, self.horizon_minutes, self.samples
        )

    def expected_utilities(
        self, jobs: tuple[Job, ...], rates_rps: np.ndarray, current: np.ndarray, capacity: float
    ) -> UtilityTable:
        """Expected utility of each replica count of each job at sampled rates (jobs, samples, minutes)."""
        table = build_table(
            jobs,
            rates_rps,
            current,
            latency_model=self.latency_model,
            drops=DROPS if OBJECTIVES.find(self.objective).effective else None,
            cold_start_minutes=self.cold_start_minutes,
            max_replicas=int(arrays_of(jobs).replicas_within(capacity).max()),
        )
        return (
            without_small_gains(table, self.least_gain, rates_rps.max(axis=(1, 2)))
            if self.least_gain
            else table
        )


def with_idle_cores(
    jobs: tuple[Job, ...],
    needed: np.ndarray,
    past_rps: np.ndarray,
    capacity: float,
    latency_model: LatencyModel,
    current: np.ndarray,
) -> np.ndarray:
    """Replicas (jobs,) within `capacity`, at least `needed` (jobs,), that maximise the sum of the jobs' mean utilities.

    The mean is over the minutes of `past_rps` (jobs, minutes). In a tie, the allocation nearest to `current` is taken.
    """
    table = build_table(
        [replace(job, min_replicas=int(count)) for job, count in zip(jobs, needed)],
        past_rps[:, :, None],
        current,
        latency_model=latency_model,
        cold_start_minutes=0.0,
        max_replicas=int(arrays_of(jobs).replicas_within(capacity).max()),
    )
    return solve(table, capacity).replicas


def bounds(
    table: UtilityTable, replicas: np.ndarray, load: np.ndarray, capacity: float, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Floors and ceilings, two arrays (jobs,): minReplicas and maxReplicas of the HPAs around the planned `replicas`.

    `load` (2, jobs) has a low and a high quantile of each job's offered load in erlangs. A replica count suffices if
    the job's expected utility is at most `tolerance` lower than with `replicas`. The floor is the lowest count that
    suffices. It is the job's minimum instead if the HPA alone would hold a sufficient count at the low load.
    Ceilings start at `replicas`. While cores are free, the ceiling with the largest high load / (ceiling + 1) rises by 1.

    >>> table = UtilityTable.from_values([Job("a"), Job("b")], [[0, 0.5, 0.97, 1.0, 1.0], [0, 1, 1, 1, 1]])
    >>> load = np.array([[0.5, 0.1], [2.0, 0.2]])
    >>> [bound.tolist() for bound in bounds(table, np.array([3, 1]), load, 5, tolerance=0.05)]
    [[2, 1], [4, 1]]
    """
    rows, arrays, ceiling = np.arange(len(replicas)), arrays_of(table.jobs), replicas.copy()
    low, high = load
    enough = table.value >= table.value[rows, replicas][:, None] - tolerance
    # The lowest counts at which the HPAs would add no replica under the low load.
    held = np.clip(np.ceil(low / HELD_UTILISATION).astype(int), arrays.min_replicas, replicas)
    floor = np.where(enough[rows, held], arrays.min_replicas, enough.argmax(axis=1))
    while True:
        cores = ceiling * arrays.cores
        quota_left = arrays.quota - np.bincount(
            arrays.group, weights=cores, minlength=len(arrays.quota)
        )
        room = np.minimum(capacity - cores.sum(), quota_left[arrays.group]) + TOLERANCE
        fits = (arrays.cores <= room) & (ceiling < arrays.max_replicas)
        if not fits.any():
            return floor, ceiling
        ceiling[np.argmax(np.where(fits, high / (ceiling + 1), -np.inf))] += 1


def deficit_weighted(table: UtilityTable, lost: np.ndarray, exponent: float) -> UtilityTable:
    """The table with each utility U replaced by 1 - weight * (1 - U). A job that has lost more gets a larger weight.

    `lost` (jobs,) is each job's sum of 1 - utility over the day's minutes so far. The weights have mean 1 and are
    proportional to (lost + PRIOR_LOST) ** exponent. With exponent 1, maximising the sum of the new utilities
    favours a small sum of (lost + PRIOR_LOST) ** 2 over the jobs. With exponent 0, the table stays as it is.
    """
    if not exponent:
        return table
    weight = (lost + PRIOR_LOST) ** exponent
    weight = (weight / weight.mean())[:, None]
    return replace(
        table, value=1 - weight * (1 - table.value), effective=1 - weight * (1 - table.effective)
    )


def without_small_gains(table: UtilityTable, least: float, most_rps: np.ndarray) -> UtilityTable:
    """Remove utility gains that may be errors of the latency model. Solvers would add replicas for such gains.

    The latency model is coarse below utilisation IDLE. Once a job's utilisation at `most_rps` (jobs,) is at most IDLE,
    further replicas therefore add no utility. Then utilities within `least` of a job's maximum become the maximum.
    """
    arrays = arrays_of(table.jobs)
    idle = np.maximum(
        np.ceil(most_rps * arrays.busy_s / IDLE), np.maximum(arrays.min_replicas, 1)
    )
    column = np.minimum(np.arange(table.columns + 1), idle[:, None].astype(int))

    def flat(utility: np.ndarray) -> np.ndarray:
        utility = np.where(
            np.isneginf(utility), utility, np.take_along_axis(utility, column, axis=1)
        )
        best = utility.max(axis=1, keepdims=True)
        return np.where(utility >= best - least, best, utility)

    drop = np.take_along_axis(table.drop, column, axis=1)
    return replace(table, value=flat(table.value), effective=flat(table.effective), drop=drop)


def tuned_options(objective: str = "Sum") -> dict[str, Any]:
    """The tuned hyperparameters of `Faro` for an objective; those of "Sum" for an unknown objective."""
    known = OBJECTIVES.get(objective)
    fair = known is not None and (known.leximin or known.spread is not None)
    return TUNED_DEFAULTS | (TUNED_FOR_FAIRNESS if fair else {})


def tuned(context: PolicyContext, objective: str = "Sum", **changes: Any) -> Faro:
    """Faro with its tuned hyperparameters, some of them overridden by `changes`; ValueError without a forecaster."""
    name = f"Faro-{objective}"
    options = tuned_options(objective) | {"latency_model": context.latency_model} | changes
    options["latency_model"] = model_of(options["latency_model"] or FALLBACK_MODEL)
    return Faro(context.require("forecaster", name), name=name, objective=objective, **options)


def bounding(policy: Policy) -> Faro:
    """The policy, changed to plan minReplicas and maxReplicas of HPAs, not replicas; ValueError if it is not a `Faro`."""
    return replace(_faro(policy), floor_tolerance=FLOOR_TOLERANCE, reactive=False)


def earning(policy: Policy, earned: Authority) -> Faro:
    """The policy with its changes limited to the `earned` authority; ValueError if it is not a `Faro`."""
    return replace(_faro(policy), earned=earned)


def _faro(policy: Policy) -> Faro:
    if not isinstance(policy, Faro):
        raise ValueError(
            f"policy={policy.name!r} makes no predictions; accepted: Faro-Sum, Faro-FairSum, ..."
        )
    return policy


for _objective in ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum"):
    register(f"Faro-{_objective}")(partial(tuned, objective=_objective))
# An objective registered by a plugin also gets a policy "Faro-<objective>".
register_family("Faro-", OBJECTIVES.knows, lambda objective: partial(tuned, objective=objective))
