"""A table, a budget and an objective, brought into the one form that all solvers read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import gcd

import numpy as np

from faro_lib.allocate.objectives import Objective, quantised
from faro_lib.workload.jobs import jobs_array


@dataclass(frozen=True, slots=True)
class Problem:
    """Jobs sorted by name (so that their order in the input cannot matter), costs in the largest common unit of cores.

    Attributes
    ----------
    order : (jobs,) positions in the table; every other array follows it.
    utility, term : (jobs, X + 1), quantised; -inf where infeasible.
    cost : (jobs,) units of one replica; `budget` in units, `unit_cores` the cores of a unit.
    tie : (jobs, X + 1) whole numbers, change from `current` first, then replicas; smaller is better.
    group, quota : tenant index (jobs,) and its units; one group without quotas.
    """

    table: object
    objective: Objective
    gamma: float
    order: np.ndarray
    utility: np.ndarray
    term: np.ndarray
    weight: np.ndarray
    cost: np.ndarray
    budget: int
    unit_cores: float
    tie: np.ndarray
    current: np.ndarray
    group: np.ndarray
    quota: np.ndarray

    def score(self, replicas) -> float:
        """The objective of `replicas` (in problem order)."""
        return self.objective.score(self.utility[np.arange(len(self.cost)), replicas], self.weight, self.gamma)

    def fits(self, replicas) -> bool:
        spent = self.cost * replicas
        return bool(
            spent.sum() <= self.budget and np.all(np.bincount(self.group, spent, len(self.quota)) <= self.quota)
        )


# One replica of change outweighs any number of replicas of a table this size.
CHANGE = 2.0**24


def problem_of(table, budget, objective: Objective, *, current=None, gamma=None, quotas=None) -> Problem:
    jobs = table.jobs
    if not isinstance(budget, (int, float, np.number)) or not 0 <= float(budget) < np.inf:
        raise ValueError(f"budget={budget!r} must be a number of cores >= 0")
    budget = float(budget)
    if objective.effective and not table.with_drops:
        raise ValueError(f"objective={objective.name!r} needs a table with drops; build_table(..., drops=DROPS)")
    if gamma is not None and not (np.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma={gamma} must be a number >= 0")
    current = np.asarray(table.running if current is None else current)
    if current.shape != (len(jobs),) or not np.all(np.isfinite(current)) or np.any(current < 0):
        raise ValueError(f"current={current.tolist()} must be {len(jobs)} whole numbers >= 0")
    order = np.array(sorted(range(len(jobs)), key=lambda j: jobs[j].name))
    tenths = np.round(jobs_array(jobs, "cores") * 10).astype(np.int64)[order]
    unit = reduce(gcd, tenths.tolist())
    units = int(np.floor(budget * 10 / unit + 1e-9))
    group, quota = _groups([jobs[j] for j in order], quotas, unit, units)
    units = min(units, int(quota.sum()))
    utility = quantised(objective.utilities(table)[order])
    weight = jobs_array(jobs, "weight").astype(float)[order]
    x = np.arange(utility.shape[1])
    tie = np.abs(x[None, :] - current[order][:, None]) * CHANGE + x[None, :]
    problem = Problem(
        table, objective, objective.gamma(len(jobs), gamma), order, utility, objective.terms(utility, weight[:, None]),
        weight,
        tenths // unit, units, unit / 10, tie, current[order].astype(np.int64), group, quota,
    )  # fmt: skip
    _check_room(problem, budget)
    return problem


def _groups(jobs, quotas, unit, units):
    if not quotas:
        return np.zeros(len(jobs), np.int64), np.array([units])
    unknown = sorted(set(quotas) - {job.tenant for job in jobs})
    if unknown:
        raise ValueError(f"quotas: tenant {unknown[0]!r} owns no job; tenants: {sorted({job.tenant for job in jobs})}")
    for tenant, cores in quotas.items():
        if not (np.isfinite(cores) and cores >= 0):
            raise ValueError(f"quotas: tenant {tenant!r} has {cores} cores; a quota is a number >= 0")
    tenants = sorted({job.tenant for job in jobs})
    quota = [
        min(units, int(np.floor(quotas.get(t, np.inf) * 10 / unit + 1e-9))) if t in quotas else units for t in tenants
    ]
    return np.array([tenants.index(job.tenant) for job in jobs]), np.array(quota)


def _check_room(problem, budget):
    feasible = ~np.isneginf(problem.utility)
    if not feasible.any(axis=1).all():
        name = problem.table.jobs[problem.order[int(np.argmin(feasible.any(axis=1)))]].name
        raise ValueError(f"job {name!r}: no replica count within its bounds is in the table")
    least = problem.cost * np.argmax(feasible, axis=1)
    if least.sum() > problem.budget:
        raise ValueError(
            f"budget={budget} cores is too small: min_replicas of the {len(least)} jobs need "
            f"{least.sum() * problem.unit_cores:g}"
        )
    for g, room in enumerate(problem.quota):
        need = least[problem.group == g].sum()
        if need > room:
            tenant = problem.table.jobs[problem.order[int(np.argmax(problem.group == g))]].tenant
            raise ValueError(
                f"quotas: tenant {tenant!r} has {room * problem.unit_cores:g} cores; min_replicas of its jobs need "
                f"{need * problem.unit_cores:g}"
            )
