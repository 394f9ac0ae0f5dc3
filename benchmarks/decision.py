"""CPU time and optimality of one decision by solver, measured in one run.

    python benchmarks/decision.py [--cobyla-up-to 100] [--repeat 5]

A decision builds the table (100 samples x 7 minutes, half-M/M/c, relaxed) and solves it. Code is
compiled and the queueing curves are cached, as in a running controller. Times are the minimum of
`--repeat` runs in one thread; compare ratios, not milliseconds. COBYLA gets the same table. SciPy's
version is printed because its COBYLA changed in 1.16.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import scipy

import studies.paper.continuous
import studies.paper.reference  # noqa: F401, registers milp and convex
from faro_lib.allocate import solve
from faro_lib.utility import DROPS, UtilityTable, build_table
from faro_lib.workload import Job
from faro_lib.workload.jobs import TOLERANCE

CLUSTERS = (
    (10, 36),
    (10, 16),
    (100, 320),
    (100, 160),
    (1000, 3200),
    (1000, 1600),
    (10_000, 32_000),
)
TARGET_MS = {10: 5.0, 100: 60.0, 1000: 1000.0, 10_000: 1000.0}
OBJECTIVES = ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum", "ProportionalFair")


def inputs(n: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    # Mean loads of the published jobs: about 2.3 busy replicas, with a spread over jobs.
    rates = 3.2 * rng.gamma(4.0, 1.0, (n, 1, 1)) * rng.lognormal(0, 0.3, (n, 100, 7))
    return [Job(f"job {j:04d}") for j in range(n)], rates, np.full(n, 3)


def overload(n: int, unequal_cores: bool, seed: int = 7):
    """A table in which each job has utility 0 below a need of 2-8 replicas, else 1: most jobs stay
    at 0 on 1.6 n cores.
    """
    rng = np.random.default_rng(seed)
    need = rng.integers(2, 9, n)
    cores = rng.choice([0.5, 1.0, 1.5], n) if unequal_cores else np.ones(n)
    jobs = [
        Job(f"job {j:04d}", min_replicas=0, max_replicas=9, cores=float(c))
        for j, c in enumerate(cores)
    ]
    return UtilityTable.from_values(jobs, np.arange(10) >= need[:, None], running=np.full(n, 3))


def best_of(repeat: int, run):
    times = []
    for _ in range(repeat):
        started = time.process_time()
        answer = run()
        times.append(time.process_time() - started)
    return min(times), answer


def target_ms(n: int, objective: str) -> float:
    spread = 3.0 if n == 1000 and "FairSum" in objective else 1.0
    return TARGET_MS[n] * spread * (4.0 if objective.startswith("Penalty") else 1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cobyla-up-to", type=int, default=10, help="jobs; 100 takes minutes")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    print(f"SciPy {scipy.__version__}\n")
    print(
        "| jobs | replicas | objective | table ms | exact ms | together | of the target | COBYLA "
        "ms | COBYLA / ours |"
    )
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    gaps = []
    for n, budget in CLUSTERS:
        jobs, rates, running = inputs(n)
        for objective in OBJECTIVES:
            if n == 10_000 and (objective.startswith("Penalty") or objective == "ProportionalFair"):
                continue
            drops = DROPS if objective.startswith("Penalty") else None
            build = lambda: build_table(jobs, rates, running, drops=drops, max_replicas=budget)  # noqa: B023, E731
            solve(build(), budget, objective)
            table_s, table = best_of(arguments.repeat, build)
            exact_s, exact = best_of(arguments.repeat, lambda: solve(table, budget, objective))  # noqa: B023
            ours = table_s + exact_s
            row = f"| {n} | {budget} | {objective} | {table_s * 1e3:.2f} | {exact_s * 1e3:.2f} | {ours * 1e3:.2f} | "
            row += f"{ours * 1e3 / target_ms(n, objective):.0%} | "
            if n <= arguments.cobyla_up_to:
                cobyla_s, _ = best_of(1, lambda: solve(table, budget, objective, "cobyla"))  # noqa: B023
                row += f"{cobyla_s * 1e3:.0f} | {(table_s + cobyla_s) / ours:.0f} |"
            print(row if n <= arguments.cobyla_up_to else row + " | |", flush=True)
            if n == 10:
                gaps.append((budget, objective, exact.value, table))
    print(f"\nPeak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB\n")
    print(
        "Fair where most jobs tie at 0:\n\n| jobs | cores | exact ms | of the target |\n| ---: | --- | ---: | ---: |"
    )
    for n, target in ((100, 60.0), (1000, 3000.0)):
        for unequal in (False, True):
            table = overload(n, unequal)
            solve(table, 1.6 * n, "Fair")
            seconds, _ = best_of(arguments.repeat, lambda: solve(table, 1.6 * n, "Fair"))  # noqa: B023
            print(
                f"| {n} | {'unequal' if unequal else 'equal'} | {seconds * 1e3:.0f} | "
                f"{seconds * 1e3 / target:.0%} |"
            )
    solvers = ("milp", "convex", "greedy", "cobyla", "slsqp", "differential-evolution")
    print("\nGap to the optimum, and milliseconds:\n")
    print("| replicas | objective | " + " | ".join(solvers) + " |")
    print("| ---: | --- |" + " ---: |" * len(solvers))
    for budget, objective, optimum, table in gaps:
        cells = []
        for solver in solvers:
            seconds, answer = best_of(1, lambda: solve(table, budget, objective, solver))  # noqa: B023
            cells.append(
                f"{(optimum - answer.value) / max(abs(optimum), TOLERANCE):.2%}, "
                f"{seconds * 1e3:.1f}"
            )
        print(f"| {budget} | {objective} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
