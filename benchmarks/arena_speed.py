"""The arena's environment: simulated minutes per CPU second, and the error of its fluid model.

    python benchmarks/arena_speed.py

Ten jobs on 36 cores (scenario steady-v1). "still" actions keep the replicas, "random" ones draw new
replicas for every job at each step. The error compares one run per policy in each model, from the
same initial replicas. Each policy reacts to the latencies of its model, so its decisions differ
too.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from faro_lib.policies import AIAD, HPA, FairShare, RayServe
from studies.arena.fluid import FluidCluster

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = ("steady-v1", "scarce-v1", "flash-v1", "neighbours-v1", "cold-10min-v1", "node-lost-v1")
POLICIES = (FairShare(), AIAD(), HPA(), RayServe(ongoing=1.0))
TRIALS = 1
RESULT = ROOT / "data/arena-environment.json"
ENVIRONMENT = "faro_ops.advise.arena:faro/Cluster-v0"  # the module registers it
CLUSTERS = {"requests": None, "fluid": FluidCluster}


def episode(env, act, seed: int, **options) -> tuple[float, float]:
    """(lost utility, CPU seconds) of one day; `act` returns an action or a plan."""
    env.reset(seed=seed, options=options)
    began = time.process_time()
    total = 0.0
    ended = False
    while not ended:
        _, reward, _, ended, _ = env.step(act(env))
        total -= reward
    return total, time.process_time() - began


def speeds(queue: str, tick_s: float) -> dict[str, float]:
    """Kind of actions -> simulated minutes per CPU second."""
    env: Any = gymnasium.make(ENVIRONMENT, cluster=CLUSTERS[queue], tick_s=tick_s).unwrapped
    rng = np.random.default_rng(0)
    acts = {
        "still": lambda env: env.observation.target,
        "random": lambda env: rng.integers(1, 7, 10),
    }
    rates = {}
    for name, act in acts.items():
        taken_s = min(episode(env, act, seed, initial=np.full(10, 3))[1] for seed in range(5))
        rates[name] = env.observation.minute / taken_s
        case = f"{queue}, a decision every {tick_s:g} s, {name} actions"
        print(f"{case}: {rates[name]:,.0f} minutes/s", flush=True)
    return rates


def lost(policy, scenario: str, queue: str, seed: int) -> float:
    """Lost utility per minute of a policy that decides outside of the environment."""
    options = {"traces": scenario, "cluster": CLUSTERS[queue], "tick_s": policy.tick_s}
    env: Any = gymnasium.make(ENVIRONMENT, **options).unwrapped
    state = policy.start(env.jobs)

    def act(env):
        nonlocal state
        state, plan = policy.decide(state, env.observation)
        return plan

    initial = policy.initial(env.jobs, env.capacity)
    total, _ = episode(env, act, seed, trial=seed, initial=initial)
    return total / env.observation.minute


def main() -> None:
    speed = {}
    for queue in CLUSTERS:
        for tick_s in (60.0, 300.0):
            speed[f"{queue} {tick_s:g}"] = speeds(queue, tick_s)
    losses: dict[str, dict[str, list[float]]] = {}
    for scenario in SCENARIOS:
        losses[scenario] = {}
        for policy in POLICIES:
            exact, fluid = (
                np.mean([lost(policy, scenario, one, n) for n in range(TRIALS)]) for one in CLUSTERS
            )
            losses[scenario][policy.name] = [float(exact), float(fluid)]
            run = f"{scenario}, {policy.name}"
            print(f"{run}: lost utility {exact:.2f} with requests, {fluid:.2f} fluid", flush=True)
    measured = {"minutes_per_s": speed, "lost_utility": losses}
    RESULT.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"{RESULT}; `python docs/arena_tables.py` shows it in docs/arena.md")


if __name__ == "__main__":
    main()
