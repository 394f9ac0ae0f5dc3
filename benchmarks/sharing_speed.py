"""CPU time per request of a pool of jobs, beside that of the same jobs with their own replicas.

    python benchmarks/sharing_speed.py [--jobs 10] [--replicas 4] [--kind serial]

Ten jobs with four replicas each at 60 % load, one hour, observed every 10 s as by a controller.
With other numbers, each replica has the same load. Replicas of other kinds, which only late binding
serves, have half as many requests more. Times are the minimum of several runs of one
thread without compilation, taken in turn.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np

from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.pools import LATE_BINDING, PoolRouter
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import SERIAL, Batched, Concurrent, Replica
from studies.sharing.routers import ROUTERS

MINUTES, TICK_S = 60, 10.0
PER_MINUTE = (150, 250)  # requests per replica, least and most
ROUNDS = 5
OWN = "own replicas"
REPLICAS = {
    "serial": SERIAL,
    "concurrent": Concurrent(2, 0.2),
    "batched": Batched(4, 0.1, 0.1, 0.05),
}


def jobs(number: int, models: int | None = None, replica: Replica = SERIAL) -> tuple[Job, ...]:
    """The jobs, in one pool if `models` is given."""
    pool = "pool" if models else ""
    one = Job("any", replica=replica, pool=pool, models_per_replica=models, load_s=0.1)
    return tuple(replace(one, name=f"job{n}") for n in range(number))


def run_s(workload: Workload, draws, each: int, router: PoolRouter) -> float:
    """CPU seconds of one run, with `each` replicas for each job."""
    replicas = np.full(len(workload.jobs), each)
    model = ServingModel(pool_router=router)
    cluster = SimulatedCluster(workload, draws, float(replicas.sum()), replicas, model)
    began = time.process_time()
    for tick in range(1, int(MINUTES * MINUTE_S / TICK_S)):
        cluster.advance(tick * TICK_S)
    cluster.finish()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--replicas", type=int, default=4, help="of each job")
    parser.add_argument("--kind", choices=REPLICAS, default="serial")
    arguments = parser.parse_args()
    number, each, replica = arguments.jobs, arguments.replicas, REPLICAS[arguments.kind]
    least, most = (each * np.array(PER_MINUTE) * (1 if replica == SERIAL else 1.5)).astype(int)
    counts = np.random.default_rng(1).integers(least, most, (number, MINUTES))
    draws = draw(Workload(jobs(number, None, replica), counts), 24)
    cases: dict[str, tuple[Workload, PoolRouter]] = {
        OWN: (Workload(jobs(number, None, replica), counts), LATE_BINDING)
    }
    for models in sorted({2, min(3, number), number}):
        for router in ROUTERS.values() if replica == SERIAL else [LATE_BINDING]:
            workload = Workload(jobs(number, models, replica), counts)
            cases[f"{router.name}, {models} models"] = (workload, router)
    taken_s = dict.fromkeys(cases, np.inf)
    for _ in range(1 + ROUNDS):  # the first round compiles
        for name, (workload, router) in cases.items():
            taken_s[name] = min(taken_s[name], run_s(workload, draws, each, router))
    for name, seconds in taken_s.items():
        per_request_ns = 1e9 * seconds / len(draws.arrival_s)
        ratio = seconds / taken_s[OWN]
        print(f"{name:20} {per_request_ns:6.0f} ns per request, {ratio:4.1f} times")


if __name__ == "__main__":
    main()
