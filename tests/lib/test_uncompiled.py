"""Compiled functions give the results of their Python code, in a small world that runs both ways.

`make coverage` runs this file uncompiled, so that coverage sees the lines of those functions.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from checkouts import ROOT

import studies.paper.continuous
import studies.paper.reference  # noqa: F401, registers milp and convex
from faro_lib import queueing
from faro_lib.allocate import solve
from faro_lib.metrics.measures import summarize
from faro_lib.policies import AIAD, PolicyContext, make
from faro_lib.queueing import _latency_kernels as queues
from faro_lib.simulate import ServingModel, draw, simulate
from faro_lib.simulate.pools import LATE_BINDING
from faro_lib.utility import DROPS, build_table
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import SERIAL, Batched, Concurrent, Continuous
from studies.forecast.oracle import Oracle
from studies.paper.solver import solve_paper
from studies.sharing.routers import ROUTERS

pytestmark = pytest.mark.slow

JOBS = (Job("a", tenant="x"), Job("b", weight=2.0, tenant="y"), Job("c", slo_s=0.4, tenant="y"))
WITH_QUOTAS = tuple(replace(job, tenant_quota={"x": 2.0, "y": 5.0}[job.tenant]) for job in JOBS)
COUNTS = np.array([[40, 700, 60, 30], [90, 80, 0, 70], [300, 20, 30, 500]])
RATES_RPS = np.random.default_rng(5).gamma(2.0, 3.0, (3, 4, 3))
OBJECTIVES = ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum")


def simulated() -> dict:
    """A few minutes under policies that grow, shrink and drop, on both dispatches."""
    workload = Workload(JOBS, COUNTS)
    told = {}
    context = PolicyContext(
        JOBS, Oracle(jobs=("a", "b", "c"), day_minutes=4, truth=COUNTS.astype(float)), "half-mmc"
    )
    for dispatch in ("round-robin", "least-outstanding"):
        serving_model = ServingModel(dispatch, queue_limit=5)
        for name in ("AIAD", "Oneshot", "Faro-PenaltySum"):
            run = simulate(
                workload,
                make(name, context),
                7,
                draws=draw(workload, 3, router=serving_model.router),
                serving_model=serving_model,
            )
            told[f"{name}, {dispatch}"] = [
                summarize(run)[key] for key in ("lost_utility", "slo_violation_rate", "requests")
            ]
    return told


def of_kinds() -> dict:
    """Replicas of the kinds that are not serial, with queues and removals."""
    replicas = (
        Concurrent(2, 0.5),
        Batched(3, 0.1, 0.2, 0.05),
        Continuous(0.02, 0.001, 1e-4, 3, 5.0, 9.0, 0.5, 0.5, 20, "per_token"),
    )
    jobs = tuple(replace(job, replica=replica, tenant="") for job, replica in zip(JOBS, replicas))
    run = simulate(Workload(jobs, COUNTS), AIAD(), 7, seed=3)
    return {
        "kinds": [
            *np.nan_to_num(run.tail_latency_s, posinf=-1).ravel().tolist(),
            *run.dropped.ravel().tolist(),
        ]
    }


def in_a_pool() -> dict:
    """Jobs that share replicas, under every router of a pool, and replicas of every kind."""
    cases = [(name, router, SERIAL) for name, router in ROUTERS.items()]
    for replica in (Concurrent(2, 0.5), Batched(3, 0.1, 0.2, 0.05)):
        cases.append((replica.kind, LATE_BINDING, replica))
    told = {}
    for name, router, replica in cases:
        shared = {"tenant": "", "pool": "p", "models_per_replica": 2, "replica": replica}
        jobs = tuple(replace(job, **shared) for job in JOBS)
        model = ServingModel(queue_limit=5, pool_router=router)
        run = simulate(Workload(jobs, COUNTS), AIAD(), 7, seed=3, serving_model=model)
        tail_s = np.nan_to_num(run.tail_latency_s, posinf=-1)
        told[f"pool, {name}"] = [*tail_s.ravel().tolist(), *run.dropped.ravel().tolist()]
    return told


def allocated() -> dict:
    """Every objective and solver, with and without drops; quotas, groups, the paper's solver."""
    told = {}
    for objective in OBJECTIVES:
        drops = DROPS[::8] if "Penalty" in objective else None
        table = build_table(JOBS, RATES_RPS, [1, 2, 1], drops=drops, max_replicas=9)
        for solver in ("exact", "greedy"):
            for jobs in (JOBS, WITH_QUOTAS):
                if objective != "Fair" or solver != "greedy":
                    found = solve(replace(table, jobs=jobs), 9, objective, solver)
                    told[f"{objective}, {solver}, {jobs is JOBS}"] = [
                        *found.replicas.tolist(),
                        found.value,
                    ]
    table = build_table(JOBS, RATES_RPS, [1, 2, 1], utility="precise", max_replicas=9)
    told["precise"] = table.value[:, 1:].ravel().tolist()
    told["cobyla"] = solve(table, 9, "FairSum", "cobyla").replicas.tolist()
    told["convex"] = solve(table, 9, "Sum", "convex").replicas.tolist()
    for objective in ("FairSum", "PenaltySum"):
        found = solve_paper(JOBS, RATES_RPS.mean(axis=1), [1, 2, 1], 9, objective)
        told[f"paper, {objective}"] = found.replicas.tolist()
    return told


def queued() -> dict:
    rates = np.array([2.0, 9.0, 16.0])
    told = {
        name: queueing.latency(name, rates, 4, 0.18, 0.99).tolist()
        for name in ("half-mmc", "mdc", "mgc")
    }
    return told | {"wait": [float(queues.wait_quantile(rho, 2, 0.9)) for rho in (0.2, 0.7)]}


def world() -> dict:
    return simulated() | of_kinds() | in_a_pool() | allocated() | queued()


@pytest.fixture(scope="module")
def both():
    """The results of this process, and of one with the opposite setting of compilation."""
    other = "0" if os.environ.get("NUMBA_DISABLE_JIT") == "1" else "1"
    code = "import json, test_uncompiled; print(json.dumps(test_uncompiled.world()))"
    environment = os.environ | {
        "NUMBA_DISABLE_JIT": other,
        "PYTHONPATH": os.pathsep.join(
            str(ROOT / part) for part in (".", "workflow", "tests/lib", "tests/support")
        ),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    last = done.stdout.splitlines()[-1]  # a solver may print a banner first
    return json.loads(json.dumps(world())), json.loads(last)


def test_compiled_and_uncompiled_runs_compute_the_same_quantities(both):
    here, there = both
    assert here.keys() == there.keys()


POLICIES = ["AIAD", "kinds", "pool", "Oneshot", "Faro"]
SOLVERS = ["exact", "greedy", "precise", "cobyla", "paper"]


@pytest.mark.parametrize("what", [*POLICIES, *SOLVERS, "mdc", "wait"])
def test_compiled_or_not_the_numbers_are_the_same(both, what):
    here, there = both
    compared = [name for name in here if what in name]
    assert compared
    for name in compared:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-9, atol=1e-12, err_msg=name)
