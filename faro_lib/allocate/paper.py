"""The paper's edition of a decision, in the detail that its numbers depend on (EuroSys'25 and its published code)."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from faro_lib.allocate.allocation import Allocation
from faro_lib.allocate.continuous import search
from faro_lib.allocate.objectives import Objective, objective_of
from faro_lib.allocate.problem import problem_of
from faro_lib.allocate.solve import allocation_of
from faro_lib.allocate.spare import repaired, shrunk
from faro_lib.queueing import RHO_MAX
from faro_lib.utility import (
    SOLVER_STEPS,
    UtilityTable,
    build_table,
    precise_drop_penalty,
    relaxed_drop_penalty,
)
from faro_lib.workload.jobs import jobs_array

# The paper's Fair. Sum + (min - max), which its simulation is said to call Fair, does not give its table
# (docs/comparison.md).
MIN_MAX = Objective("Fair", term=lambda utility, weight: 0.0 * utility, spread=lambda jobs: 1.0)


def solve_paper(
    jobs,
    rates_rps,
    running,
    budget,
    objective="Sum",
    *,
    current=None,
    method: str = "cobyla",
    latency_model: str = "half-mmc",
    utility: str = "relaxed",
    alpha: float = 1.0,
    cold_start: bool | None = None,
    gamma: float | None = None,
    shrink: bool = True,
    tol: float = 1e-4,
    seed: int = 0,
    options=None,
) -> Allocation:
    """COBYLA (or another search) on the continuous formulation, rounded up, repaired and shrunk.

    Parameters
    ----------
    jobs : sequence of Job.
    rates_rps : (jobs, minutes), one quantile of the forecast.
    running : (jobs,) counts that serve now; the search starts there.
    budget : cores.
    objective : Sum, Fair (min - max), FairSum, PenaltySum, PenaltyFairSum. In the last two the drop rates
        are variables of the search that leave the modelled rate alone.
    current : (jobs,) counts that the repair stays close to; `running` if None.
    method : "cobyla" (SciPy's), "nlopt-cobyla" (Powell's code as older SciPy had it; needs nlopt), "slsqp" or
        "differential-evolution"; `options` go to it.
    latency_model : "half-mmc" or "upper-bound"; `utility` "relaxed" or "precise".
    cold_start : whether the first minute of a grown job is served by its running count; None: only if `running` leaves
        no replica free.

    Returns
    -------
    Allocation whose value is the objective of this formulation at the whole numbers; bound and gap are NaN.
    """
    from faro_lib.allocate import _solver_kernels as _compiled

    started = time.perf_counter()
    jobs = tuple(jobs)
    rates = np.asarray(rates_rps, float)
    if rates.ndim != 2 or rates.shape[0] != len(jobs):
        raise ValueError(f"rates_rps has shape {rates.shape}; expected ({len(jobs)} jobs, minutes)")
    if latency_model not in ("half-mmc", "upper-bound"):
        raise ValueError(f"latency_model={latency_model!r} has no continuous form; accepted: half-mmc, upper-bound")
    chosen = MIN_MAX if objective == "Fair" else objective_of(objective)
    cores = jobs_array(jobs, "cores").astype(float)
    running = np.asarray(running)
    if cold_start is None:
        cold_start = bool((cores * running).sum() >= budget)
    largest = int(budget / cores.min())
    table = build_table(
        jobs, rates[:, None, :], running, latency_model=latency_model, utility=utility, alpha=alpha,
        cold_start_minutes=1.0 if cold_start else 0.0, max_replicas=largest,
    )  # fmt: skip
    n = len(jobs)
    spread = chosen.gamma(n, gamma)
    lower = jobs_array(jobs, "min_replicas").astype(float)
    upper = np.maximum(np.minimum(jobs_array(jobs, "max_replicas"), np.floor(budget / cores)), lower).astype(float)
    loads = rates * jobs_array(jobs, "service_time_s")[:, None]
    # The upper bound is in seconds, l = load / c; the queues are in service times.
    slo = jobs_array(jobs, "slo_s").astype(float)
    if latency_model != "upper-bound":
        slo = slo / jobs_array(jobs, "service_time_s")
    mode = 2 if chosen is MIN_MAX else (1 if spread else 0)
    fixed = (
        loads, running.astype(float), cold_start, slo,
        jobs_array(jobs, "quantile").astype(float), jobs_array(jobs, "weight").astype(float),
        latency_model == "upper-bound", utility == "precise", float(alpha), RHO_MAX, np.asarray(SOLVER_STEPS), spread,
        mode,
    )  # fmt: skip
    none = np.zeros(n)
    start = np.clip(running.astype(float), lower, upper)
    if chosen.effective:
        x = search(
            lambda v: _compiled.paper_score(v[:n], v[n:], *fixed), np.concatenate([start, none]),
            np.concatenate([lower, none]), np.concatenate([upper, np.ones(n)]), np.concatenate([cores, none]), budget,
            method, seed=seed, options=options,
        )  # fmt: skip
        x, drop = x[:n], x[n:]
    else:
        x = search(
            lambda v: _compiled.paper_score(v, none, *fixed), start, lower, upper, cores, budget, method,
            seed=seed, options=options,
        )  # fmt: skip
        drop = none
    table = _with_drops(_widened(table, int(upper.max())), drop, utility)
    problem = problem_of(table, budget, replace(chosen, effective=True), current=current, gamma=gamma)
    replicas = repaired(problem, np.ceil(x - 1e-6).astype(np.int64)[problem.order])
    if shrink:
        replicas = shrunk(problem, replicas, np.argsort(problem.order), tol)
    return allocation_of(problem, replicas, float("nan"), time.perf_counter() - started, method)


def _widened(table, columns) -> UtilityTable:
    """The same table with columns up to `columns`, each repeating the last within the job's bounds."""
    more = columns - table.columns
    if more <= 0:
        return table
    x = np.arange(columns + 1)
    outside = x[None, :] > np.maximum(jobs_array(table.jobs, "max_replicas"), table.columns)[:, None]
    value, effective, drop = (
        np.pad(a, ((0, 0), (0, more)), mode="edge") for a in (table.value, table.effective, table.drop)
    )
    value, effective = np.where(outside, -np.inf, value), np.where(outside, -np.inf, effective)
    return replace(table, value=value, effective=effective, drop=drop)


def _with_drops(table, drop, utility) -> UtilityTable:
    """The table at drop rates that are decided already and do not touch the queue."""
    penalty = precise_drop_penalty if utility == "precise" else relaxed_drop_penalty
    phi = penalty(np.clip(drop, 0, 1), SOLVER_STEPS)[:, None]
    with np.errstate(invalid="ignore"):
        effective = np.where(np.isneginf(table.value), -np.inf, table.value * phi)
    return replace(table, effective=effective, drop=np.repeat(drop[:, None], table.value.shape[1], 1), with_drops=True)
