"""Allocation of very many jobs: first between groups of jobs, then within each group.

Source: EuroSys'25, on scalability.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from faro_lib.allocate.objectives import Objective, objective_of
from faro_lib.allocate.problem import Allocation
from faro_lib.allocate.solve import solve
from faro_lib.utility import build_table
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import TOLERANCE


def solve_hierarchical(
    jobs: Sequence[Job],
    rates_rps,
    running,
    budget: float,
    *,
    groups: int = 10,
    objective: str | Objective = "Sum",
    solver: str = "exact",
    gamma: float | None = None,
    options: dict | None = None,
    **table,
) -> Allocation:
    """Allocate `budget` cores to `groups` aggregated jobs, then each group's share to its jobs.

    The jobs, in order of name, are assigned to the groups in turn. They must have the same `cores`
    and no tenant quota. `options` go to the solver, and `table` goes to `build_table`. The result
    names the solver "hierarchical-<solver>".
    """
    jobs = tuple(jobs)
    rates = np.asarray(rates_rps, float)  # (jobs, ...)
    running = np.asarray(running)
    arrays = arrays_of(jobs)
    if not 1 <= groups <= len(jobs):
        raise ValueError(f"groups={groups} must lie in 1..{len(jobs)}, the number of jobs")
    if np.ptp(arrays.cores) > 0:
        raise ValueError(
            "cores differ between the jobs; all replicas of a group must have one size"
        )
    if np.isfinite(arrays.quota).any():
        raise ValueError(
            "tenant_quota is not supported by the hierarchical solver, whose groups cut across "
            "tenants"
        )
    started = time.perf_counter()
    cores = float(arrays.cores[0])
    chosen = objective_of(objective)
    options = options or {}
    by_name = np.array(sorted(range(len(jobs)), key=lambda j: jobs[j].name))
    members = [by_name[g::groups] for g in range(groups)]  # the indices of each group's jobs
    capacity = int(budget / cores + TOLERANCE)
    table = {"max_replicas": capacity, **table}
    aggregates = [_aggregate(g, tuple(jobs[j] for j in rows)) for g, rows in enumerate(members)]
    group_rates = np.stack([rates[rows].sum(axis=0) for rows in members])
    group_running = np.stack([running[rows].sum(axis=0) for rows in members])
    group_table = build_table(aggregates, group_rates, group_running, **table)
    shares = solve(group_table, budget, chosen, solver, gamma=gamma, **options).replicas
    # A pooled group needs fewer replicas than its jobs do separately. Divide the spare ones in
    # proportion to `shares`.
    spare = max(0, capacity - int(shares.sum())) * shares / max(1, shares.sum())
    shares = shares + np.floor(spare).astype(int)
    rest = min(capacity - int(shares.sum()), groups)
    shares[np.argsort(np.floor(spare) - spare, kind="stable")[: max(0, rest)]] += 1
    replicas = np.empty(len(jobs), np.int64)
    drop = np.empty(len(jobs))
    utility = np.empty(len(jobs))
    for rows, share, aggregate in zip(members, shares, aggregates):
        part = build_table([jobs[j] for j in rows], rates[rows], running[rows], **table)
        part_budget = max(share, aggregate.min_replicas) * cores
        allocation = solve(part, part_budget, chosen, solver, gamma=gamma, **options)
        replicas[rows] = allocation.replicas
        drop[rows] = allocation.drop
        utility[rows] = chosen.utilities(part)[np.arange(len(rows)), allocation.replicas]
    value = float(chosen.score(utility, arrays.weight, gamma))
    nan = float("nan")  # no bound, no gap
    seconds = time.perf_counter() - started
    name = f"hierarchical-{solver}"
    return Allocation(replicas, drop, value, nan, nan, seconds, name, chosen.name)


def _aggregate(group: int, jobs: tuple[Job, ...]) -> Job:
    """One job that stands for a group: means of times, SLO and quantile, sums of the limits."""
    arrays = arrays_of(jobs)
    fields: dict[str, Any] = {"cores": jobs[0].cores, "weight": float(arrays.weight.sum())}
    for field in ("slo_s", "quantile", "service_scv", "cold_start_s"):
        fields[field] = float(np.mean(getattr(arrays, field)))
    fields["service_time_s"] = float(np.mean(arrays.busy_s))
    for field in ("min_replicas", "max_replicas"):
        fields[field] = int(getattr(arrays, field).sum())
    return Job(f"group {group:06d}", **fields)
