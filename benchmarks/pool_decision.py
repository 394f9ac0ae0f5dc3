"""Time of one decision for jobs in pools, from observation to plan, beside that of isolated jobs.

    python benchmarks/pool_decision.py [--repeat 5]

Faro-Sum with its tuned defaults, pools of five jobs with two models per replica, 3.2 cores per job.
Both policies see the same observation. Times are the minimum of `--repeat` decisions with compiled
code, on the clock and of the processor; while other programs run, only the second one means much.
The set-up is done once: the forecaster is fitted, and the first decision reads or measures latency
tables and curves. The peak of memory is that of the process so far.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass, field, replace
from typing import Any

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate import simulate
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces
from faro_lib.workload.synthetic import synthetic
from studies.scale import run as scale
from studies.tables.wording import markdown_lines

SIZES = (100, 1000, 10_000)
OF_POOL, MODELS = 5, 2
CORES_PER_JOB = 3.2
MINUTES = 2  # of the simulated day


def in_pools(traces: Traces) -> Traces:
    """The traces with every OF_POOL jobs in a pool of their own."""
    jobs = tuple(
        replace(job, pool=f"pool {n // OF_POOL}", models_per_replica=MODELS)
        for n, job in enumerate(traces.jobs)
    )
    return replace(traces, jobs=jobs)


@dataclass
class Timed:
    """A policy whose planning decisions are repeated and timed, in seconds."""

    policy: Any
    repeat: int
    times_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def decide(self, state, observation):
        if self.policy.is_long_term(observation.now_s):
            for _ in range(self.repeat):
                began, cpu_began = time.perf_counter(), time.process_time()
                self.policy.decide(state, observation)
                self.times_s.append(time.perf_counter() - began)
                self.cpu_s.append(time.process_time() - cpu_began)
        return self.policy.decide(state, observation)


def decision_s(traces: Traces, capacity: float, repeat: int) -> tuple[float, float, float]:
    """Seconds of a planning decision and of the processor, and of the processor in the set-up.

    The first two are the least of the decisions of MINUTES minutes.
    """
    began = time.process_time()
    fitted = forecast.fit("ar", traces)
    context = PolicyContext(traces.jobs, fitted, measure(traces.jobs), traces=traces)
    policy = Timed(make("Faro-Sum", context), repeat)
    ready_s = time.process_time() - began
    simulate(traces.workload().between(0, MINUTES), policy, capacity, seed=24)
    return min(policy.times_s), min(policy.cpu_s), ready_s + policy.cpu_s[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--jobs", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    few = synthetic(seed=1, days=3)

    def rows():
        for jobs in arguments.jobs:
            traces = scale.enlarged(few, scale.SHIFTED, jobs)
            capacity = CORES_PER_JOB * jobs
            alone = decision_s(traces, capacity, arguments.repeat)
            pooled = decision_s(in_pools(traces), capacity, arguments.repeat)
            peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
            yield (
                f"{jobs:,}",
                f"{jobs // OF_POOL:,}",
                f"{capacity:,.0f}",
                *(f"{1000 * seconds:.0f}" for seconds in (*alone[:2], *pooled[:2])),
                f"{alone[2]:.0f}",
                f"{pooled[2]:.0f}",
                f"{peak_gb:.1f}",
            )

    heads = ["jobs", "pools", "cores", "isolated, ms", "CPU ms", "pools, ms", "CPU ms"]
    heads += ["set-up, isolated, CPU s", "pools, CPU s", "peak, GB"]
    for line in markdown_lines(heads, rows(), right=heads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
