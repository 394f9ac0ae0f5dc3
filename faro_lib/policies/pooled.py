"""The decision of `Faro` for jobs that share replicas: pools and jobs alone under one capacity."""

from dataclasses import replace
from typing import Protocol

import numpy as np

from faro_lib.allocate import OBJECTIVES, marginal_values, solve
from faro_lib.policies.loops import LoopState
from faro_lib.protocol import DECILES, PLAN_ATTEMPTS, Observation, Plan, reasons
from faro_lib.queueing import LatencyModel
from faro_lib.sharing.admission import admit
from faro_lib.sharing.placement import place
from faro_lib.sharing.units import Units, cold_start_of, row_for, units_of, with_pools
from faro_lib.utility import (
    UtilityTable,
    fewest_with_same_utility,
    predicted_latency,
    with_switching_cost,
)
from faro_lib.workload import Job, Placement, Pool, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE


class Planner(Protocol):
    """What `pooled_decision` needs of `Faro`."""

    @property
    def objective(self) -> str: ...
    @property
    def latency_model(self) -> LatencyModel: ...
    @property
    def horizon_minutes(self) -> int: ...
    @property
    def cold_start_minutes(self) -> float: ...
    @property
    def switching_cost(self) -> float: ...
    @property
    def gamma(self) -> float | None: ...
    @property
    def reserve(self) -> bool: ...

    def forecast_paths(self, state: LoopState, observation: Observation) -> np.ndarray: ...

    def expected_utilities(
        self, jobs: tuple[Job, ...], rates_rps: np.ndarray, current: np.ndarray, capacity: float
    ) -> UtilityTable: ...


def pooled_decision(
    faro: Planner, state: LoopState, observation: Observation
) -> tuple[Plan, np.ndarray, UtilityTable]:
    """`Faro.decision` where jobs share replicas: plan, sampled rates, and the units' table.

    The solver divides the capacity between units, which are pools and jobs alone. Each pool then
    decides which jobs it serves in the next minute, and which models its replicas hold.
    """
    jobs, units = state.jobs, units_of(state.jobs)
    now, capacity = units.sums(observation.target), observation.capacity
    rates_rps = faro.forecast_paths(state, observation) / MINUTE_S
    rates_rps *= observation.exists[:, None, None]
    expected = unit_table(faro, jobs, units, rates_rps, now, capacity)
    costed = with_switching_cost(expected, faro.switching_cost)
    gamma = OBJECTIVES.find(faro.objective).gamma(len(jobs), faro.gamma)
    allocation = solve(costed, capacity, faro.objective, current=now, gamma=gamma)
    if faro.reserve and state.forecaster.past.size:
        replicas = _with_reserve(faro, state, observation, units, expected, allocation.replicas)
        allocation = replace(allocation, replicas=replicas)
    by_unit = allocation.replicas

    target = np.array(observation.target, np.int64)
    drop = np.zeros(len(jobs))
    alone = list(units.alone)
    target[alone] = by_unit[: len(alone)]
    drop[alone] = allocation.drop[: len(alone)]
    next_minute = min(1, faro.horizon_minutes - 1)
    placement = {}
    running = units.sums(observation.running)
    for pool, replicas, serving in zip(units.pools, by_unit[len(alone) :], running[len(alone) :]):
        members = list(pool.jobs)
        paths_rps = rates_rps[members][:, :, next_minute]
        refused = _refused(faro, jobs, pool, paths_rps, int(min(replicas, serving)), gamma)
        placed = _placed(jobs, pool, int(replicas), paths_rps, refused, observation)
        drop[members] = refused
        target[members] = placed.replicas
        placement[pool.name] = placed

    forecast_rps = rates_rps.mean(axis=(1, 2))
    # A row ends where more replicas are worth no more; the reserve may go beyond its end.
    within = replace(allocation, replicas=np.minimum(by_unit, costed.columns))
    value_up, value_down = marginal_values(costed, within, gamma=gamma)
    plan = Plan(
        target=target,
        drop=drop,
        reason=reasons(target, observation.target),
        attempts=PLAN_ATTEMPTS,
        forecast_rps=forecast_rps,
        predicted_tail_latency_s=_predicted(faro, jobs, units, forecast_rps, by_unit, drop),
        next_minute_deciles_rps=np.quantile(rates_rps[:, :, next_minute], DECILES, axis=1).T,
        marginal_value_up=units.spread(value_up, len(jobs)),
        marginal_value_down=units.spread(value_down, len(jobs)),
        placement=placement,
    )
    return plan, rates_rps, expected


def unit_table(
    faro: Planner,
    jobs: tuple[Job, ...],
    units: Units,
    rates_rps: np.ndarray,
    running: np.ndarray,
    capacity: float,
) -> UtilityTable:
    """Expected utility of each replica count of each unit; `running` is (units,)."""
    alone = list(units.alone)
    table = None
    if alone:
        of_alone = tuple(jobs[j] for j in alone)
        table = faro.expected_utilities(of_alone, rates_rps[alone], running[: len(alone)], capacity)
    objective = OBJECTIVES.find(faro.objective)
    rows = []
    for pool, serving in zip(units.pools, running[len(alone) :]):
        members = [jobs[j] for j in pool.jobs]
        row = row_for(
            objective,
            objective.gamma(len(jobs), faro.gamma),
            members,
            rates_rps[list(pool.jobs)],
            int(serving),
            max(int(capacity / pool.cores + TOLERANCE), int(serving)),
            latency_model=faro.latency_model,
            cold_start_minutes=cold_start_of(members, faro.cold_start_minutes),
        )
        rows.append(row)
    return with_pools(units, table, running, rows)


def _with_reserve(
    faro: Planner,
    state: LoopState,
    observation: Observation,
    units: Units,
    expected: UtilityTable,
    planned: np.ndarray,
) -> np.ndarray:
    """`Faro.with_reserve` for units: idle cores go to units that needed them in the past."""
    cores = arrays_of(units.jobs).cores
    needed = fewest_with_same_utility(expected, planned)
    if observation.capacity - needed @ cores < cores.min() - TOLERANCE:
        return planned
    past_rps = state.forecaster.past / MINUTE_S * observation.exists[:, None]
    now = units.sums(observation.target)
    always = replace(faro, cold_start_minutes=0.0)  # type: ignore[type-var]
    past = unit_table(always, state.jobs, units, past_rps[:, :, None], now, observation.capacity)
    # The table ends where more replicas were worth no more; a forecast may need more than that.
    column = np.minimum(np.arange(max(past.columns, needed.max()) + 1), past.columns)
    at_least_needed = [
        replace(unit, min_replicas=int(count)) for unit, count in zip(units.jobs, needed)
    ]
    table = UtilityTable.from_values(at_least_needed, past.value[:, column], running=now)
    return solve(table, observation.capacity).replicas


def _refused(
    faro: Planner,
    jobs: tuple[Job, ...],
    pool: Pool,
    paths_rps: np.ndarray,
    replicas: int,
    gamma: float,
) -> np.ndarray:
    """Share of the requests of each job of the pool to refuse, for rates (jobs, samples)."""
    members = tuple(jobs[j] for j in pool.jobs)
    arrays = arrays_of(members)
    curves = faro.latency_model.curves(members, "relaxed", 1.0, replicas)
    admission = admit(
        (paths_rps * arrays.busy_s[:, None]).T,
        replicas,
        curves,
        arrays.weight,
        OBJECTIVES.find(faro.objective),
        gamma=gamma,
    )
    return admission.drop


def _placed(
    jobs: tuple[Job, ...],
    pool: Pool,
    replicas: int,
    paths_rps: np.ndarray,
    refused: np.ndarray,
    observation: Observation,
) -> Placement:
    """Which models the pool's replicas should hold for what is not refused."""
    arrays = arrays_of(tuple(jobs[j] for j in pool.jobs))
    served = paths_rps * (arrays.busy_s * (1 - refused))[:, None]
    current = (observation.placement or {}).get(pool.name)
    return place(pool, replicas, served.T, arrays.min_replicas, current)


def _predicted(
    faro: Planner,
    jobs: tuple[Job, ...],
    units: Units,
    rates_rps: np.ndarray,
    by_unit: np.ndarray,
    drop: np.ndarray,
) -> np.ndarray:
    """Latency quantile of each job in seconds; that of a pool's job at the pool's whole load."""
    arrays = arrays_of(jobs)
    load = units.sums(rates_rps * (1 - drop) * arrays.busy_s)
    replicas = units.spread(by_unit, len(jobs))
    rate = units.spread(load, len(jobs)) / arrays.busy_s
    return predicted_latency(jobs, rate, replicas, latency_model=faro.latency_model)
