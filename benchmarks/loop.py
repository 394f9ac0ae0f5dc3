"""Time of a decision in the loop, from observation to plan: forecast, table, solution, explanation.

    python benchmarks/loop.py [--minutes 60] [--largest-minutes 5]

Faro-Sum with its tuned defaults in a simulation of 10 jobs (Bayesian forecaster, 36 replicas) and
of 1,000 jobs (pooled autoregression, 3,200 replicas). Only planning ticks count, one per minute,
with compiled code. On a busy machine wall time exceeds CPU time; the last column is the CPU time of
the complete run.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate import draw, simulate
from faro_lib.simulate.measure import measure
from faro_lib.workload.synthetic import synthetic
from studies.scale import run as scale
from studies.tables.wording import markdown_lines

LIMIT_MS = {10: 20, 1000: 2000}
POSTERIOR = Path(__file__).parents[1] / "data" / "posterior-smoke.npz"


@dataclass
class Timed:
    """A policy whose planning ticks are timed, in wall and CPU seconds."""

    policy: Any
    ticks_s: list

    def __getattr__(self, name):
        return getattr(self.policy, name)

    def decide(self, state, observation):
        wall_s = time.perf_counter()
        cpu_s = time.process_time()
        answer = self.policy.decide(state, observation)
        if self.policy.is_long_term(observation.now_s):
            self.ticks_s.append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
        return answer


def planning_ms(context: PolicyContext, day, capacity: int) -> tuple[np.ndarray, float]:
    """Wall and CPU milliseconds of every planning tick (ticks, 2), and CPU seconds of the run.

    Drawing the requests is not part of the run.
    """
    policy = Timed(make("Faro-Sum", context), [])
    draws = draw(day, 24)
    simulate(day.between(0, 2), policy, capacity, seed=24)
    policy.ticks_s.clear()
    began = time.process_time()
    simulate(day, policy, capacity, draws=draws)
    return 1e3 * np.array(policy.ticks_s), time.process_time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--largest-minutes", type=int, default=5)
    arguments = parser.parse_args()
    few = synthetic(seed=1, days=3)
    many = scale.enlarged(few, scale.SHIFTED, 1000)
    cases = (
        (few, forecast.fit("bayes", few, posterior=POSTERIOR), 36, arguments.minutes),
        (many, forecast.fit("ar", many), 3200, arguments.largest_minutes),
    )

    def timed():
        for traces, forecaster, capacity, minutes in cases:
            n = len(traces.jobs)
            context = PolicyContext(traces.jobs, forecaster, measure(traces.jobs))
            ms, cpu_s = planning_ms(context, traces.workload().between(0, minutes), capacity)
            slow, cpu = np.quantile(ms, 0.99, axis=0)
            times = [f"{one:.1f}" for one in (np.median(ms[:, 0]), slow, cpu)]
            per_hour = f"{cpu_s / n * 60 / minutes:.2f}"
            yield n, capacity, len(ms), *times, LIMIT_MS[n], per_hour

    heads = ["jobs", "replicas", "plans", "median ms", "p99 ms", "CPU p99 ms", "limit ms"]
    heads.append("CPU s per job and hour")
    for line in markdown_lines(heads, timed(), right=heads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
