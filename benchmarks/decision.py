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
from functools import partial

import numpy as np
import scipy

import studies.paper.continuous
import studies.paper.reference  # noqa: F401, registers milp and convex
from faro_lib.allocate import solve
from faro_lib.utility import DROPS, UtilityTable, build_table
from faro_lib.workload import Job
from faro_lib.workload.jobs import TOLERANCE
from studies.tables.wording import markdown_lines

# Jobs and cores.
SMALL = ((10, 36), (10, 16), (100, 320), (100, 160))
LARGE = ((1000, 3200), (1000, 1600), (10_000, 32_000))
CLUSTERS = (*SMALL, *LARGE)
TARGET_MS = {10: 5.0, 100: 60.0, 1000: 1000.0, 10_000: 1000.0}
OBJECTIVES = ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum", "ProportionalFair")
SOLVERS = ("milp", "convex", "greedy", "cobyla", "slsqp", "differential-evolution")


def inputs(n: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    # Mean loads of the published jobs: about 2.3 busy replicas, with a spread over jobs.
    rates = 3.2 * rng.gamma(4.0, 1.0, (n, 1, 1)) * rng.lognormal(0, 0.3, (n, 100, 7))
    return [Job(f"job {j:04d}") for j in range(n)], rates, np.full(n, 3)


def overload(n: int, unequal_cores: bool, seed: int = 7):
    """A table in which most jobs stay at utility 0 on 1.6 n cores.

    Each job has utility 0 below a need of 2 to 8 replicas, else 1.
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
    target = TARGET_MS[n]
    if n == 1000 and "FairSum" in objective:
        target *= 3.0
    if objective.startswith("Penalty"):
        target *= 4.0
    return target


def decisions(repeat: int, cobyla_up_to: int, gaps: list):
    """Rows of the first table; tables and optima of ten jobs are appended to `gaps`."""
    for n, budget in CLUSTERS:
        jobs, rates, running = inputs(n)
        for objective in OBJECTIVES:
            penalty = objective.startswith("Penalty")
            if n == 10_000 and (penalty or objective == "ProportionalFair"):
                continue
            drops = DROPS if penalty else None
            build = partial(build_table, jobs, rates, running, drops=drops, max_replicas=budget)
            solve(build(), budget, objective)
            table_s, table = best_of(repeat, build)
            exact_s, exact = best_of(repeat, partial(solve, table, budget, objective))
            ours_ms = 1e3 * (table_s + exact_s)
            cobyla_ms = ratio = ""
            if n <= cobyla_up_to:
                cobyla_s, _ = best_of(1, partial(solve, table, budget, objective, "cobyla"))
                cobyla_ms = f"{cobyla_s * 1e3:.0f}"
                ratio = f"{(table_s + cobyla_s) * 1e3 / ours_ms:.0f}"
            if n == 10:
                gaps.append((budget, objective, exact.value, table))
            times = (f"{table_s * 1e3:.2f}", f"{exact_s * 1e3:.2f}", f"{ours_ms:.2f}")
            share = f"{ours_ms / target_ms(n, objective):.0%}"
            yield n, budget, objective, *times, share, cobyla_ms, ratio


def ties(repeat: int):
    """Rows of the second table: Fair where most jobs tie at 0."""
    for n, target in ((100, 60.0), (1000, 3000.0)):
        for unequal in (False, True):
            table = overload(n, unequal)
            solve(table, 1.6 * n, "Fair")
            seconds, _ = best_of(repeat, partial(solve, table, 1.6 * n, "Fair"))
            cores = "unequal" if unequal else "equal"
            yield n, cores, f"{seconds * 1e3:.0f}", f"{seconds * 1e3 / target:.0%}"


def compared(gaps: list):
    """Rows of the third table: gap to the optimum and milliseconds of each solver."""
    for budget, objective, optimum, table in gaps:
        cells = []
        for solver in SOLVERS:
            seconds, answer = best_of(1, partial(solve, table, budget, objective, solver))
            gap = (optimum - answer.value) / max(abs(optimum), TOLERANCE)
            cells.append(f"{gap:.2%}, {seconds * 1e3:.1f}")
        yield budget, objective, *cells


def show(heads, rows, right):
    for line in markdown_lines(heads, rows, right):
        print(line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cobyla-up-to", type=int, default=10, help="jobs; 100 takes minutes")
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    print(f"SciPy {scipy.__version__}\n")
    gaps: list = []
    times = ["table ms", "exact ms", "together", "of the target", "COBYLA ms", "COBYLA / ours"]
    rows = decisions(arguments.repeat, arguments.cobyla_up_to, gaps)
    show(["jobs", "replicas", "objective", *times], rows, ["jobs", "replicas", *times])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nPeak memory: {peak_mb:.0f} MB\n")
    print("Fair where most jobs tie at 0:\n")
    times = ["exact ms", "of the target"]
    show(["jobs", "cores", *times], ties(arguments.repeat), ["jobs", *times])
    print("\nGap to the optimum, and milliseconds:\n")
    show(["replicas", "objective", *SOLVERS], compared(gaps), ["replicas", *SOLVERS])


if __name__ == "__main__":
    main()
