"""Leximin with many jobs of equal utility, against all allocations and an integer program."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import studies.paper.continuous
import studies.paper.reference  # noqa: F401, registers milp and convex
from faro_lib.allocate import solve
from faro_lib.utility import UtilityTable
from faro_lib.workload import Job


def tied_table(seed, n=6, columns=4, quotas=False):
    """Jobs of few levels of utility, most of them at 0; with bounds, weights and cores."""
    rng = np.random.default_rng(seed)
    levels = [0.0, 0.25, 0.5, 1.0]
    chance = [0.55, 0.15, 0.15, 0.15]
    value = np.sort(rng.choice(levels, (n, columns), p=chance), axis=1)
    cores = [1.0] if seed % 2 else [0.5, 1.0, 1.5]
    low = rng.integers(0, 2, n)
    jobs = [
        Job(
            f"{j}",
            cores=float(rng.choice(cores)),
            weight=float(rng.choice([0.5, 3.0])),
            min_replicas=int(low[j]),
            max_replicas=int(rng.integers(max(1, low[j]), columns)),
            tenant="xy"[j % 2],
            tenant_quota=(3.0, 4.5)[j % 2] if quotas else None,
        )
        for j in range(n)
    ]
    return UtilityTable.from_values(jobs, value, running=rng.integers(0, columns, n))


def brute_force(table, budget):
    """(sorted utilities, change, replicas) of the best allocation, or None if none fits."""
    columns = [np.flatnonzero(np.isfinite(row)) for row in table.value]
    replicas = np.array(list(itertools.product(*columns)))
    spent = replicas * np.array([job.cores for job in table.jobs])
    fits = spent.sum(axis=1) <= budget
    for tenant in "xy":
        of = np.array([job.tenant == tenant for job in table.jobs])
        fits &= spent[:, of].sum(axis=1) <= min(
            job.tenant_quota or np.inf for job in table.jobs if job.tenant == tenant
        )
    if not fits.any():
        return None
    replicas = replicas[fits]
    return max(rank(table, x) for x in replicas)


def rank(table, x):
    utility = np.sort(table.value[np.arange(len(x)), x])
    return tuple(utility), -int(np.abs(x - table.running).sum()), -int(x.sum())


@pytest.mark.parametrize("quotas", [False, True])
def test_fair_equals_brute_force_where_many_jobs_tie_at_0(quotas):
    solved = 0
    for seed in range(120):
        table = tied_table(seed, quotas=quotas)
        budget = 2.0 + seed % 6
        best = brute_force(table, budget)
        if best is None:
            with pytest.raises(ValueError, match="too small"):
                solve(table, budget, "Fair")
            continue
        assert rank(table, solve(table, budget, "Fair").replicas) == best, f"seed {seed}"
        solved += 1
    assert solved > 80


@pytest.mark.parametrize("cores", [[1.0], [0.5, 1.0, 1.5]])
def test_fair_equals_the_integer_program_per_level_on_30_tied_jobs(cores):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        value = np.sort(rng.choice([0.0, 0.3, 0.6, 1.0], (30, 9), p=[0.7, 0.1, 0.1, 0.1]), axis=1)
        jobs = [Job(f"{j:02d}", cores=float(rng.choice(cores)), max_replicas=8) for j in range(30)]
        table = UtilityTable.from_values(jobs, value, running=rng.integers(0, 9, 30))
        exact, oracle = (solve(table, 75, "Fair", solver) for solver in ("exact", "milp"))
        assert rank(table, exact.replicas) == rank(table, oracle.replicas)


@pytest.mark.parametrize("unequal", [False, True])
def test_in_overload_fair_serves_as_many_of_1000_jobs_as_fit(unequal):
    """Utility is 0 below a job's need and 1 from it on, so the smallest needs come first."""
    rng = np.random.default_rng(7)
    need = rng.integers(2, 9, 1000)
    cores = rng.choice([0.5, 1.0, 1.5], 1000) if unequal else np.ones(1000)
    jobs = [
        Job(f"{j:04d}", min_replicas=0, max_replicas=9, cores=float(c)) for j, c in enumerate(cores)
    ]
    table = UtilityTable.from_values(
        jobs, (np.arange(10) >= need[:, None]).astype(float), running=np.full(1000, 3)
    )
    for budget in (500, 1600):
        replicas = solve(table, budget, "Fair").replicas
        fit = int((np.cumsum(np.sort(need * cores)) <= budget).sum())
        assert (replicas >= need).sum() == fit
        assert (replicas * cores).sum() <= budget


def test_fair_within_quotas_serves_each_tenants_cheapest_jobs():
    rng = np.random.default_rng(8)
    need = rng.integers(2, 9, 100)
    tenants = np.arange(100) % 5
    jobs = [
        Job(f"{j:03d}", min_replicas=0, max_replicas=9, tenant=f"{t}", tenant_quota=20.0)
        for j, t in enumerate(tenants)
    ]
    table = UtilityTable.from_values(jobs, (np.arange(10) >= need[:, None]).astype(float))
    replicas = solve(table, 160, "Fair").replicas
    per_tenant = [(np.cumsum(np.sort(need[tenants == t])) <= 20).sum() for t in range(5)]
    assert [(replicas >= need)[tenants == t].sum() for t in range(5)] == per_tenant


@pytest.mark.parametrize("quotas", [False, True])
def test_fair_reaches_the_best_utilities_if_the_integer_program_finds_nothing_in_its_time(
    quotas, monkeypatch
):
    calls = []
    monkeypatch.setattr("faro_lib.allocate.leximin.least_loss", lambda *_: calls.append(1))
    for seed in range(240):
        table = tied_table(seed, quotas=quotas)
        budget = 2.0 + seed % 6
        best = brute_force(table, budget)
        if best is None:
            continue
        allocation = solve(table, budget, "Fair")
        assert rank(table, allocation.replicas)[0] == best[0], f"seed {seed}"
        assert allocation.gap == 0.0
        spent = [job.cores * n for job, n in zip(table.jobs, allocation.replicas)]
        assert sum(spent) <= budget
        if quotas:
            assert sum(spent[::2]) <= 3.0
            assert sum(spent[1::2]) <= 4.5
    assert len(calls) > 20


def test_the_order_of_tied_jobs_does_not_change_what_fair_achieves():
    table = tied_table(3, n=30, columns=6)
    order = np.random.default_rng(1).permutation(30)
    shuffled = replace(
        table,
        jobs=[table.jobs[j] for j in order],
        **{
            field: getattr(table, field)[order]
            for field in ("running", "value", "effective", "drop")
        },
    )
    np.testing.assert_array_equal(
        solve(table, 40, "Fair").replicas[order], solve(shuffled, 40, "Fair").replicas
    )
