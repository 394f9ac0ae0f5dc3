"""Time of one decision for jobs in pools, from observation to plan, beside that of isolated jobs.

    python benchmarks/pool_decision.py [--repeat 5]

Faro-Sum with its tuned defaults, pools of five jobs with two models per replica, 3.2 cores per job.
Both policies see the same observation. Times are the minimum of `--repeat` decisions with compiled
code; compare ratios, not milliseconds. The set-up is done once: the forecaster is fitted, and the
first decision reads or measures latency tables and curves.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from typing import Any

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate import simulate
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces
from faro_lib.workload.synthetic import synthetic
from studies import scale
from studies.wording import markdown_lines

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

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def decide(self, state, observation):
        if self.policy.is_long_term(observation.now_s):
            for _ in range(self.repeat):
                began = time.perf_counter()
                self.policy.decide(state, observation)
                self.times_s.append(time.perf_counter() - began)
        return self.policy.decide(state, observation)


def decision_s(traces: Traces, capacity: float, repeat: int) -> tuple[float, float]:
    """Seconds of a planning decision, the least of those of MINUTES minutes, and of the set-up."""
    began = time.perf_counter()
    fitted = forecast.fit("ar", traces)
    context = PolicyContext(traces.jobs, fitted, measure(traces.jobs), traces=traces)
    policy = Timed(make("Faro-Sum", context), repeat)
    ready_s = time.perf_counter() - began
    simulate(traces.workload().between(0, MINUTES), policy, capacity, seed=24)
    return min(policy.times_s), ready_s + policy.times_s[0]


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
            alone_s, alone_set_up_s = decision_s(traces, capacity, arguments.repeat)
            pooled_s, set_up_s = decision_s(in_pools(traces), capacity, arguments.repeat)
            yield (
                f"{jobs:,}",
                f"{jobs // OF_POOL:,}",
                f"{capacity:,.0f}",
                f"{1000 * alone_s:.0f}",
                f"{1000 * pooled_s:.0f}",
                f"{pooled_s / alone_s:.2f}",
                f"{alone_set_up_s:.0f}",
                f"{set_up_s:.0f}",
            )

    heads = ["jobs", "pools", "cores", "isolated, ms", "pools, ms", "ratio"]
    heads += ["set-up, isolated, s", "pools, s"]
    for line in markdown_lines(heads, rows(), right=heads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
