"""Faro's decision as in the paper and its published code."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from faro_lib.allocate.objectives import Objective, objective_of
from faro_lib.allocate.problem import Allocation, problem_of
from faro_lib.utility import (
    SOLVER_STEPS,
    UtilityTable,
    build_table,
    precise_drop_penalty,
    relaxed_drop_penalty,
)
from faro_lib.workload import Job, arrays_of
from studies.paper.continuous import published_search, search
from studies.paper.repair import repaired, shrunk

# The paper's Fair objective, min - max. Sum + (min - max) does not reproduce the paper's table
# (docs/comparison.md).
MIN_MAX = Objective("Fair", term=lambda utility, weight: 0.0 * utility, spread=lambda jobs: 1.0)
MODELS = ("half-mmc", "upper-bound")


def solve_paper(
    jobs: Sequence[Job],
    rates_rps,
    running,
    budget: float,
    objective: str = "Sum",
    *,
    current=None,
    method: str = "cobyla",
    latency_model: str = "half-mmc",
    utility: str = "relaxed",
    cold_start: bool | None = None,
    shrink: bool = True,
) -> Allocation:
    """Search fractional replica counts, round them up, meet the budget, and free useless replicas.

    Parameters
    ----------
    rates_rps : (jobs, minutes), one quantile of the forecast.
    running : replicas (jobs,) that serve now. The search starts from them.
    budget : cores. The search ignores tenant quotas. The reduction to the budget
        (`repair.repaired`) enforces them.
    objective : Sum, Fair (min - max), FairSum, PenaltySum or PenaltyFairSum. The last two also
        search the drop rates, which do not reduce the modelled rates.
    current : replicas (jobs,) that the reduction stays close to. None means `running`.
    method : a name in `continuous.METHODS`.
    latency_model : "half-mmc" or "upper-bound".
    utility : "relaxed" or "precise".
    cold_start : whether new replicas serve only from the second minute on. None means True if there
        is a second minute and the `running` replicas fill the budget.

    Returns
    -------
    Allocation whose value is the objective. Its bound and gap are NaN.
    """
    from studies.paper import _kernels as kernels

    started = time.perf_counter()
    jobs = tuple(jobs)
    rates = np.asarray(rates_rps, float)
    running = np.asarray(running)
    if rates.ndim != 2 or rates.shape[0] != len(jobs):
        raise ValueError(f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, minutes)")
    if latency_model not in MODELS:
        raise ValueError(
            f"latency_model={latency_model!r} has no continuous form; accepted: {', '.join(MODELS)}"
        )
    chosen = MIN_MAX if objective == "Fair" else objective_of(objective)
    arrays = arrays_of(jobs)
    if cold_start is None:
        cold_start = rates.shape[1] > 1 and bool((arrays.cores * running).sum() >= budget)
    lower = arrays.min_replicas.astype(float)
    within = np.minimum(arrays.max_replicas, arrays.replicas_within(budget))
    upper = np.maximum(within.astype(float), lower)
    upper_bound = latency_model == "upper-bound"
    formulation = kernels.Formulation(
        loads=rates * arrays.busy_s[:, None],
        running=running.astype(float),
        cold_start=bool(cold_start),
        slo=arrays.slo_s if upper_bound else arrays.slo_s / arrays.busy_s,
        quantile=arrays.quantile,
        weight=arrays.weight,
        upper_bound=upper_bound,
        precise=utility == "precise",
        gamma=chosen.gamma(len(jobs)),
        spread_only=chosen is MIN_MAX,
    )

    def score(x, drop):
        return kernels.score(x, drop, formulation)

    start = np.clip(running.astype(float), lower, upper)
    limits = (lower, upper, arrays.cores, budget)
    x, drop = _search(score, start, *limits, with_drops=chosen.effective, method=method)
    replicas = np.clip(np.ceil(x), lower, upper).astype(np.int64)
    table = build_table(
        jobs,
        rates[:, None, :],
        running,
        latency_model=latency_model,
        utility=utility,
        cold_start_minutes=float(cold_start),
        max_replicas=int(arrays.replicas_within(budget).max()),
    )
    table = _with_drops(_widened(table, int(upper.max())), drop, utility)
    problem = problem_of(table, budget, replace(chosen, effective=True), current=current)
    replicas = repaired(problem, replicas[problem.order])
    if shrink:
        replicas = shrunk(problem, replicas, np.argsort(problem.order))
    return problem.allocation(replicas, float("nan"), time.perf_counter() - started, method)


def _search(
    score: Callable, start, lower, upper, cost, budget: float, *, with_drops: bool, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """(fractional replicas, drop rates), both (jobs,), that maximise `score` of both.

    Without `with_drops`, the drop rates are 0.
    """
    n = len(start)
    if with_drops:  # also search the percentage of its requests that each job accepts
        start = np.append(start, np.full(n, 100.0))
        cost = np.append(cost, np.zeros(n))
        lower = np.append(lower, np.zeros(n))
        upper = np.append(upper, np.full(n, 100.0))

    def drop_of(v):
        return np.clip(1 - v[n:] / 100, 0, 1) if with_drops else np.zeros(n)

    def score_of(v):
        return score(v[:n], drop_of(v))

    if method == "cobyla":
        v = published_search(score_of, start, lower, upper[n:], cost, budget)
    else:
        v = search(score_of, start, lower, upper, cost, budget, method)
    return v[:n], drop_of(v)


def shrink(
    table: UtilityTable, allocation: Allocation, budget: float, *, gamma: float | None = None
) -> Allocation:
    """Free replicas that the objective does not need (`repair.shrunk`), in the table's order."""
    started = time.perf_counter()
    problem = problem_of(table, budget, objective_of(allocation.objective), gamma=gamma)
    replicas = shrunk(problem, allocation.replicas[problem.order], np.argsort(problem.order))
    seconds = allocation.seconds + time.perf_counter() - started
    return problem.allocation(replicas, allocation.bound, seconds, allocation.solver)


def _widened(table: UtilityTable, columns: int) -> UtilityTable:
    """Extend the table to `columns` replicas.

    New columns repeat the last one, with utility -inf above max_replicas.
    """
    more = columns - table.columns
    if more <= 0:
        return table
    limit = np.maximum(arrays_of(table.jobs).max_replicas, table.columns)
    outside = np.arange(columns + 1)[None, :] > limit[:, None]

    def widened(rows: np.ndarray) -> np.ndarray:
        return np.pad(rows, ((0, 0), (0, more)), mode="edge")

    return replace(
        table,
        value=np.where(outside, -np.inf, widened(table.value)),
        effective=np.where(outside, -np.inf, widened(table.effective)),
        drop=widened(table.drop),
    )


def _with_drops(table: UtilityTable, drop: np.ndarray, utility: str) -> UtilityTable:
    """The table with utilities multiplied by the penalty of the drop rates (jobs,).

    The load is not reduced.
    """
    penalty = precise_drop_penalty if utility == "precise" else relaxed_drop_penalty
    phi = penalty(np.clip(drop, 0, 1), SOLVER_STEPS)[:, None]
    infeasible = np.isneginf(table.value)
    value = np.where(infeasible, 0, table.value)
    effective = np.where(infeasible, -np.inf, value * phi)
    return replace(
        table,
        effective=effective,
        drop=np.repeat(drop[:, None], table.value.shape[1], 1),
        with_drops=True,
    )
