"""Faro: forecast sample paths of requests, tabulate expected utilities, solve the allocation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from faro_lib.allocate import OBJECTIVES, marginal_values, solve
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.forecast.nowcast import nowcast
from faro_lib.policies.factories import PolicyContext, PolicyFactory, register, register_family
from faro_lib.policies.learning import Learner
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.policies.pooled import Share, shares_alone, shares_of_pools
from faro_lib.protocol import DECILES, PLAN_ATTEMPTS, Observation, Plan, reasons
from faro_lib.queueing import Formula, LatencyModel, model_of
from faro_lib.queueing.shared_factor import SlowerPools
from faro_lib.queueing.slower import Slower
from faro_lib.sharing.units import rows_for, units_of, with_pools
from faro_lib.utility import (
    DROPS,
    UtilityTable,
    build_table,
    fewest_with_same_utility,
    mean_of,
    predicted_latency,
    with_switching_cost,
)
from faro_lib.utility.table import wide
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_lib.workload.shares import at_least_one_each, fair_share

HALF_MMC = Formula("half-mmc")  # the latency model of the paper
FALLBACK_MODEL = "mgc"  # latency model if there is no measured table
LIKELY_FACTORS = 5  # equally likely factors on service times that a decision averages over
LEARNING = "-learning"  # end of the name of a policy that learns service times
PRIOR_LOST = 2.0  # added to lost utilities in `deficit_weighted`, so that first losses weigh less

# Tuned on days 9 and 10 of the published traces, with a forecaster fitted to days 1 to 8
# (docs/tuning.md).
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
# Where jobs share replicas, decisions are made at the start of a minute: a job that is refused from
# the middle of a minute on loses that minute, too.
TUNED_FOR_POOLS = dict(phase_s=0.0)


@dataclass(frozen=True, slots=True)
class Decision:
    """A plan, and what it was computed from."""

    plan: Plan
    rates_rps: np.ndarray  # sample paths of the load, (jobs, samples, minutes)
    expected: UtilityTable  # expected utilities at these rates, without switching costs


@dataclass(frozen=True, slots=True)
class Faro(TwoLoops):
    """Choose the replica counts with the best objective (e.g. the sum) of the expected utilities.

    `TwoLoops` calls `plan` at every long-term decision. `forecaster` and the times of decisions are
    its fields.
    """

    name: str = "Faro-Sum"
    objective: str = "Sum"  # a name in `allocate.OBJECTIVES`
    latency_model: LatencyModel = HALF_MMC
    samples: int = 100  # sample paths of a forecast
    horizon_minutes: int = HORIZON_MINUTES
    nowcast: bool = False  # whether the forecast uses the count of the current minute
    # Minutes during which only the old replicas of a growing job serve.
    cold_start_minutes: float = 1.0
    switching_cost: float = 0.0  # utility subtracted for changing a job's replica count
    # FairSum and PenaltyFairSum subtract gamma (max - min utility); None = number of jobs.
    gamma: float | None = None
    deficit_weighting: float = 0.0  # exponent in `deficit_weighted`; 0 ignores past losses
    # Whether idle cores go to jobs that would have used them on the training days.
    reserve: bool = False
    # What learns the factors between true and assumed service times; None: times are as assumed.
    learner: Learner | None = None
    # Equally likely latency models, if service times are uncertain; `latency_model` is the median.
    likely_models: tuple[LatencyModel, ...] = ()
    # Whether jobs begin with the counts of `Static`; if not, with their minimum, as in the paper.
    starts_from_past: bool = False

    def start(self, jobs: tuple[Job, ...]) -> LoopState:
        state = TwoLoops.start(self, jobs)
        return replace(state, learned=self.learner.start(jobs)) if self.learner else state

    def decide(self, state: LoopState, observation: Observation) -> tuple[LoopState, Plan]:
        return TwoLoops.decide(self, self.having_learned(state, observation), observation)

    def having_learned(self, state: LoopState, observation: Observation) -> LoopState:
        """The state with what the observation says about service times."""
        if self.learner is None or state.learned is None:
            return state
        learned = self.learner.updated(state.jobs, state.learned, observation, self.latency_model)
        return replace(state, learned=learned)

    def informed(self, state: LoopState) -> "Faro":
        """This policy with the latency model of the services as they have turned out to be."""
        if self.learner is None or state.learned is None:
            return self
        factors = self.learner.factors(state.learned, LIKELY_FACTORS)
        units = units_of(state.jobs)
        names = [state.jobs[j].name for j in units.alone]
        by_model = [dict(zip(names, of_jobs)) for of_jobs in factors[list(units.alone)].T.tolist()]
        likely: tuple[LatencyModel, ...]
        likely = tuple(Slower(self.latency_model, by_name) for by_name in by_model)
        if units.pools:
            own = self.learner.mean_factors(state.learned)
            mean = state.learned.pools.mean(own)
            shares = np.flatnonzero(units.shares)
            of_pools = [
                {state.jobs[j].name: float(factor[j]) for j in shares} for factor in (own, mean)
            ]
            likely = tuple(SlowerPools(model, *of_pools) for model in likely)
        median = likely[len(likely) // 2]
        return replace(self, latency_model=median, likely_models=likely, learner=None)

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        """The minimum of each job; jobs that share replicas begin with an equal share instead.

        With `starts_from_past`, all jobs begin with the best constant counts of the training days,
        if there are any.
        """
        minimum = at_least_one_each(jobs, capacity)
        if self.starts_from_past and self.forecaster.past.size:
            return self.constant_replicas(jobs, capacity, minimum)
        pooled = [j for pool in units_of(jobs).pools for j in pool.jobs]
        if pooled:
            minimum[pooled] = fair_share(jobs, capacity)[pooled]
        return minimum

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        return self.decision(state, observation).plan

    def decision(self, state: LoopState, observation: Observation) -> Decision:
        """Forecast, tabulate the expected utilities, and allocate the capacity.

        The solver divides the capacity between units, which are pools and jobs alone. Each pool
        then decides which jobs it serves in the next minute, and which models its replicas hold.
        The plan has the optimal replicas and drop rates, with their predictions and marginal
        values.
        """
        faro, jobs = self.informed(state), state.jobs
        units = units_of(jobs)
        now, capacity = units.sums(observation.target), observation.capacity
        rates_rps = self.forecast_paths(state, observation) / MINUTE_S
        rates_rps *= observation.exists[:, None, None]
        expected = faro.unit_table(jobs, rates_rps, now, capacity)
        if state.learned is not None:
            now = units.sums(state.learned.raised.staying_at(observation.target))
            expected = replace(expected, running=now)
        costed = with_switching_cost(expected, self.switching_cost)
        shares: Callable[..., Share] = shares_of_pools
        if not units.pools:
            costed = deficit_weighted(costed, state.lost, self.deficit_weighting)
            shares = shares_alone
        objective = OBJECTIVES.find(self.objective)
        gamma = objective.gamma(len(jobs), self.gamma)
        allocation = solve(costed, capacity, self.objective, current=now, gamma=gamma)
        replicas = allocation.replicas
        if self.reserve and state.forecaster.past.size:  # drop rates stay as allocated
            replicas = faro.with_reserve(state, observation, expected, replicas)
        rules = objective, gamma, faro.latency_model
        share = shares(jobs, rates_rps, replicas, allocation.drop, observation, *rules)
        next_rps = np.ascontiguousarray(rates_rps[:, :, min(1, self.horizon_minutes - 1)])
        latency_s = predicted_latency(
            jobs, share.rates_rps, units.spread(replicas), latency_model=faro.latency_model
        )
        # A row ends where more replicas are worth no more; the reserve may go beyond its end.
        within = replace(allocation, replicas=np.minimum(replicas, costed.columns))
        value_up, value_down = marginal_values(costed, within, gamma=gamma)
        plan = Plan(
            target=share.target,
            drop=share.drop,
            reason=reasons(share.target, observation.target),
            attempts=PLAN_ATTEMPTS,
            forecast_rps=rates_rps.mean(axis=(1, 2)),
            predicted_tail_latency_s=latency_s,
            next_minute_deciles_rps=np.quantile(next_rps, DECILES, axis=1).T,
            marginal_value_up=units.spread(value_up),
            marginal_value_down=units.spread(value_down),
            placement=share.placement,
        )
        return Decision(plan, rates_rps, expected)

    def with_reserve(
        self,
        state: LoopState,
        observation: Observation,
        expected: UtilityTable,
        planned: np.ndarray,
    ) -> np.ndarray:
        """The `planned` replicas (units,), and idle cores for units that needed them in the past.

        A core is idle if no planned replica uses it, or if the replica on it does not raise the
        `expected` utility. Idle cores are allocated to maximise the sum of the jobs' mean utilities
        over the minutes of `Forecaster.past`. If the forecast misses a burst like those of the
        training days, replicas for it are already running.
        """
        cores = arrays_of(expected.jobs).cores
        needed = fewest_with_same_utility(expected, planned)
        idle_cores = observation.capacity - needed @ cores
        if idle_cores < cores.min() - TOLERANCE:
            return planned
        past_rps = state.forecaster.past / MINUTE_S * observation.exists[:, None]
        past = self.past_utilities(state.jobs, past_rps, expected.running, observation.capacity)
        return with_idle_cores(past, needed, observation.capacity)

    def past_utilities(
        self, jobs: tuple[Job, ...], past_rps: np.ndarray, running: np.ndarray, capacity: float
    ) -> UtilityTable:
        """Mean utility of each constant replica count of each unit over past minutes.

        `past_rps` is (jobs, minutes), and `running` (units,).
        """
        # The sum of utilities without drops; a pool's row depends on the objective.
        objective = self.objective if units_of(jobs).pools else "Sum"
        always = replace(self, objective=objective, cold_start_minutes=0.0, likely_models=())
        return always.unit_table(jobs, past_rps[:, :, None], running, capacity)

    def constant_replicas(
        self, jobs: tuple[Job, ...], capacity: float, least: np.ndarray
    ) -> np.ndarray:
        """The constant counts (jobs,) with the largest total utility over the training minutes.

        n = argmax sum_j w_j mean_t U(l(lam_jt, n_j)), with n >= `least` (jobs,) and within
        `capacity` cores, over the minutes t of `Forecaster.past`. A job that shares replicas gets
        as many at home as it would need alone.
        """
        alone = tuple(replace(job, pool="") for job in jobs)
        past_rps = self.forecaster.past / MINUTE_S
        past = self.past_utilities(alone, past_rps, least, capacity)
        return with_idle_cores(past, least, capacity)

    def forecast_paths(self, state: LoopState, observation: Observation) -> np.ndarray:
        """Sample paths of requests per minute from now on, (jobs, samples, minutes)."""
        elapsed_s = observation.now_s - MINUTE_S * observation.minute
        counted = observation.arrivals_now
        if not self.nowcast or counted is None or not 0 < elapsed_s <= MINUTE_S:
            return state.forecaster.sample(self.horizon_minutes, self.samples)
        elapsed = elapsed_s / MINUTE_S
        return nowcast(state.forecaster, counted, elapsed, self.horizon_minutes, self.samples)

    def unit_table(
        self, jobs: tuple[Job, ...], rates_rps: np.ndarray, running: np.ndarray, capacity: float
    ) -> UtilityTable:
        """`expected_utilities` of each replica count of each unit; `running` is (units,)."""
        units = units_of(jobs)
        if not units.pools:
            return self.expected_utilities(jobs, rates_rps, running, capacity)
        alone, table = list(units.alone), None
        if alone:
            table = self.expected_utilities(
                tuple(jobs[j] for j in alone), rates_rps[alone], running[: len(alone)], capacity
            )
        objective = OBJECTIVES.find(self.objective)
        cores = np.array([pool.cores for pool in units.pools])
        serving = running[len(alone) :]
        rows = rows_for(
            objective,
            objective.gamma(len(jobs), self.gamma),
            jobs,
            units.pools,
            rates_rps,
            serving,
            np.maximum((capacity / cores + TOLERANCE).astype(np.int64), serving),
            latency_model=self.latency_model,
            cold_start_minutes=self.cold_start_minutes,
        )
        return with_pools(units, table, running, rows)

    def expected_utilities(
        self, jobs: tuple[Job, ...], rates_rps: np.ndarray, current: np.ndarray, capacity: float
    ) -> UtilityTable:
        """Expected utility of each replica count of each job at sampled rates.

        If service times are uncertain, each of their likely values holds for an equal part of the
        sample paths. Objectives with drops use the median, because one drop rate must suit all.
        """
        drops = DROPS if OBJECTIVES.find(self.objective).effective else None
        models = (self.latency_model,) if drops else self.likely_models or (self.latency_model,)
        tables = [
            build_table(
                jobs,
                rates_rps[:, part :: len(models)],
                current,
                latency_model=model,
                drops=drops,
                cold_start_minutes=self.cold_start_minutes,
                max_replicas=int(arrays_of(jobs).replicas_within(capacity).max()),
            )
            for part, model in enumerate(models)
        ]
        return tables[0] if len(tables) == 1 else mean_of(tables)


def with_idle_cores(past: UtilityTable, needed: np.ndarray, capacity: float) -> np.ndarray:
    """Replicas (rows,) >= `needed` (rows,) that maximise the sum of the rows' utilities.

    They fit into `capacity` cores. `past` has the mean utilities in the past. In a tie, the
    allocation nearest to its `running` replicas is taken.
    """
    # The table ends where more replicas were worth no more; `needed` may be more than that.
    columns = max(past.columns, needed.max()) + 1
    value = np.where(np.arange(columns) < needed[:, None], -np.inf, wide(past.value, columns))
    table = UtilityTable.from_values(past.jobs, value, running=past.running)
    return solve(table, capacity).replicas


def deficit_weighted(table: UtilityTable, lost: np.ndarray, exponent: float) -> UtilityTable:
    """The table with each utility U replaced by 1 - weight * (1 - U).

    `lost` (jobs,) is each job's sum of 1 - utility over the day's minutes so far. A job that has
    lost more gets a larger weight: weights have mean 1 and are proportional to
    (lost + PRIOR_LOST) ** exponent. With exponent 1, maximising the sum of the new utilities
    favours a small sum of (lost + PRIOR_LOST) ** 2 over the jobs. With exponent 0, the table stays
    as it is.
    """
    if not exponent:
        return table
    weight = (lost + PRIOR_LOST) ** exponent
    weight = (weight / weight.mean())[:, None]
    value = 1 - weight * (1 - table.value)
    effective = 1 - weight * (1 - table.effective)
    return replace(table, value=value, effective=effective)


def tuned_options(objective: str = "Sum") -> dict[str, Any]:
    """The tuned hyperparameters of `Faro` for an objective; those of "Sum" if it is unknown."""
    known = OBJECTIVES.get(objective)
    fair = known is not None and (known.leximin or known.spread is not None)
    return TUNED_DEFAULTS | (TUNED_FOR_FAIRNESS if fair else {})


def tuned(context: PolicyContext, objective: str = "Sum", **changes: Any) -> Faro:
    """Faro with its tuned hyperparameters and `changes`; ValueError without a forecaster."""
    name = f"Faro-{objective}"
    options: dict[str, Any] = tuned_options(objective)
    if units_of(context.jobs).pools:
        options |= TUNED_FOR_POOLS
    options |= {"latency_model": context.latency_model} | changes
    options["latency_model"] = model_of(options["latency_model"] or FALLBACK_MODEL)
    return Faro(context.require("forecaster", name), name=name, objective=objective, **options)


for _objective in ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum"):
    register(f"Faro-{_objective}")(partial(tuned, objective=_objective))


def _member(name: str) -> PolicyFactory:
    """Faro for any objective, such as a plugin's; with "-learning", it learns service times."""
    objective = name.removesuffix(LEARNING)
    learner = Learner() if objective != name else None
    return lambda of: replace(tuned(of, objective), name=f"Faro-{name}", learner=learner)


register_family("Faro-", lambda name: OBJECTIVES.knows(name.removesuffix(LEARNING)), _member)
