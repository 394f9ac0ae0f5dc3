"""For very many jobs: first between groups of jobs, then inside each group (the paper's section on scale)."""

from __future__ import annotations

import time

import numpy as np

from faro_lib.allocate.allocation import Allocation
from faro_lib.allocate.objectives import objective_of
from faro_lib.allocate.solve import solve
from faro_lib.utility import build_table
from faro_lib.workload.jobs import Job, jobs_array


def solve_hierarchical(
    jobs,
    rates_rps,
    running,
    budget,
    *,
    groups: int = 10,
    objective="Sum",
    solver="exact",
    gamma=None,
    options=None,
    **table,
) -> Allocation:
    """Solve over `groups` aggregates (rates and bounds summed, service times and SLOs averaged), then inside each.

    Jobs are dealt to the groups in the order of their names. `options` go to the solver, further keywords to
    `build_table`. The allocation's value is that of all jobs together; its solver is "hierarchical-" and the name of
    the inner one.
    """
    jobs, rates, running = tuple(jobs), np.asarray(rates_rps, float), np.asarray(running)
    if not 1 <= groups <= len(jobs):
        raise ValueError(f"groups={groups} must lie in 1..{len(jobs)}, the number of jobs")
    if len({job.cores for job in jobs}) > 1:
        raise ValueError("cores differ between the jobs; a group's replica needs one size")
    started = time.perf_counter()
    chosen, options = objective_of(objective), options or {}
    by_name = np.array(sorted(range(len(jobs)), key=lambda j: jobs[j].name))
    members = [by_name[g::groups] for g in range(groups)]
    table = {"max_replicas": int(budget / jobs[0].cores), **table}
    aggregates = [_aggregate(g, [jobs[j] for j in rows]) for g, rows in enumerate(members)]
    above = build_table(
        aggregates,
        np.stack([rates[rows].sum(axis=0) for rows in members]),
        [running[rows].sum() for rows in members],
        **table,
    )
    shares = solve(above, budget, chosen, solver, gamma=gamma, **options).replicas
    # A group pools its servers and so seems to need fewer than its jobs do: what is left over is shared in proportion.
    spare = max(0, int(budget / jobs[0].cores) - int(shares.sum())) * shares / max(1, shares.sum())
    shares = shares + np.floor(spare).astype(int)
    rest = min(int(budget / jobs[0].cores) - int(shares.sum()), groups)
    shares[np.argsort(np.floor(spare) - spare, kind="stable")[: max(0, rest)]] += 1
    replicas, drop = np.empty(len(jobs), np.int64), np.empty(len(jobs))
    utility = np.empty(len(jobs))
    for g, (rows, share) in enumerate(zip(members, shares)):
        part = build_table([jobs[j] for j in rows], rates[rows], running[rows], **table)
        inside = solve(
            part, max(share, aggregates[g].min_replicas) * jobs[0].cores, chosen, solver, gamma=gamma, **options
        )
        replicas[rows], drop[rows] = inside.replicas, inside.drop
        utility[rows] = chosen.utilities(part)[np.arange(len(rows)), inside.replicas]
    value = chosen.score(utility, jobs_array(jobs, "weight").astype(float), gamma)
    nan = float("nan")
    return Allocation(
        replicas, drop, value, nan, nan, time.perf_counter() - started, f"hierarchical-{solver}", chosen.name
    )


def _aggregate(g, jobs) -> Job:
    return Job(
        f"group {g:06d}",
        slo_s=float(np.mean([job.slo_s for job in jobs])),
        quantile=float(np.mean([job.quantile for job in jobs])),
        service_time_s=float(np.mean([job.service_time_s for job in jobs])),
        service_scv=float(np.mean([job.service_scv for job in jobs])),
        cold_start_s=float(np.mean([job.cold_start_s for job in jobs])),
        cores=jobs[0].cores,
        weight=float(np.sum([job.weight for job in jobs])),
        min_replicas=sum(job.min_replicas for job in jobs),
        max_replicas=sum(job.max_replicas for job in jobs),
    )
