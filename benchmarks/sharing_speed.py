"""CPU time per request of a pool of jobs, beside that of the same jobs with their own replicas.

    python benchmarks/sharing_speed.py

Ten jobs with four replicas each at 60 % load, one hour, observed every 10 s as by a controller.
Times are the minimum of several runs of one thread without compilation, taken in turn.
"""

from __future__ import annotations

import time

import numpy as np

from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.pools import LATE_BINDING, PoolRouter
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from studies.pool_routers import ROUTERS

JOBS, REPLICAS, MINUTES, TICK_S = 10, 4, 60, 10.0
ROUNDS = 5
OWN = "own replicas"


def jobs(models: int | None) -> tuple[Job, ...]:
    """The jobs, in one pool if `models` is given."""
    pool = "pool" if models else ""
    names = [f"job{n}" for n in range(JOBS)]
    return tuple(Job(name, pool=pool, models_per_replica=models, load_s=0.1) for name in names)


def run_s(workload: Workload, draws, router: PoolRouter) -> float:
    """CPU seconds of one run."""
    replicas = np.full(JOBS, REPLICAS)
    model = ServingModel(pool_router=router)
    cluster = SimulatedCluster(workload, draws, float(replicas.sum()), replicas, model)
    began = time.process_time()
    for tick in range(1, int(MINUTES * MINUTE_S / TICK_S)):
        cluster.advance(tick * TICK_S)
    cluster.finish()
    return time.process_time() - began


def main() -> None:
    counts = np.random.default_rng(1).integers(600, 1000, (JOBS, MINUTES))
    draws = draw(Workload(jobs(None), counts), 24)
    cases = {OWN: (Workload(jobs(None), counts), LATE_BINDING)}
    for models in (2, 3, JOBS):
        for router in ROUTERS.values():
            cases[f"{router.name}, {models} models"] = (Workload(jobs(models), counts), router)
    taken_s = dict.fromkeys(cases, np.inf)
    for _ in range(1 + ROUNDS):  # the first round compiles
        for name, (workload, router) in cases.items():
            taken_s[name] = min(taken_s[name], run_s(workload, draws, router))
    for name, seconds in taken_s.items():
        per_request_ns = 1e9 * seconds / len(draws.arrival_s)
        ratio = seconds / taken_s[OWN]
        print(f"{name:20} {per_request_ns:6.0f} ns per request, {ratio:4.1f} times")


if __name__ == "__main__":
    main()
