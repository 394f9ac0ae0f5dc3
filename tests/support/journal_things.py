"""Journals for tests: edits with right checksums, and ticks of many jobs without a policy."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from observations import observed

from faro_lib.control import GuardrailConfig
from faro_lib.control.tick import Step
from faro_lib.workload import Job
from faro_ops.operate.limits.authority import Authority
from faro_ops.operate.memory.journal import Header
from faro_ops.operate.memory.records import complete_lines, decoded, encoded
from faro_ops.protocol import LivePlan, live_observation

TICK_S = 10.0


def edit(path: Path, old: str, new: str, count: int = -1) -> None:
    """Replace a text in the lines of a journal or of an archive, whose checksums stay right."""
    lines = list(complete_lines(path))
    text = "".join(json.dumps(decoded(line)) + "\n" for line in lines)
    records = [json.loads(line) for line in text.replace(old, new, count).splitlines()]
    content = b"".join(encoded(record) for record in records)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def header_of(jobs: int) -> Header:
    """The header of a run of `jobs` jobs that earns its authority."""
    table = tuple(Job(f"service-{n}", slo_s=0.4, max_replicas=50) for n in range(jobs))
    return Header("Faro-Sum", table, GuardrailConfig(), TICK_S, True, origin_s=0)


def steps(jobs: int, minutes: int, every_s: float = TICK_S, seed: int = 0) -> Iterator[Step]:
    """The steps of `minutes`: every minute a plan, and noise in everything that is measured."""
    random = np.random.default_rng(seed)
    usual = random.uniform(20, 2000, jobs)  # requests per minute
    target = random.integers(1, 8, jobs)
    authority = Authority.none(jobs).to_array()
    counts = random.poisson(usual[:, None], (jobs, 15)).astype(float)
    tail_s = random.gamma(4, 0.1, jobs)
    held = ("hold",) * jobs
    for minute in range(16, 16 + minutes):
        counts = np.column_stack([counts[:, 1:], random.poisson(usual)])
        tail_s = random.gamma(4, 0.1, jobs)
        authority = authority.copy()
        authority[:, 1:4] *= random.uniform(0.9, 1.1, (jobs, 3))
        authority[:, 5], authority[:, 7] = target, minute
        for second in np.arange(0.0, 60.0, every_s):
            seen = observed(
                target,
                capacity=1000.0,
                now_s=60.0 * minute + second,
                minute=minute,
                arrivals_per_min=counts,
                mean_latency_s=random.gamma(4, 0.05, jobs),
                tail_latency_s=tail_s,
                ongoing=random.poisson(usual / 300).astype(float),
                arrivals_now=random.poisson(usual * second / 60).astype(float),
            )
            placed = np.zeros((jobs, 30), int)
            placed[np.arange(jobs), np.arange(jobs) % 30] = target
            seen = live_observation(seen)
            object.__setattr__(seen, "placed", placed)
            object.__setattr__(seen, "free_cores", np.full(30, 2.0))
            plan = LivePlan(target, np.zeros(jobs), held, authority=authority)
            if second == 0:
                wanted = np.maximum(
                    target + random.integers(-1, 2, jobs) * (random.random(jobs) < 0.1), 1
                )
                plan = LivePlan(
                    wanted,
                    np.zeros(jobs),
                    tuple("planned" if x != y else "hold" for x, y in zip(wanted, target)),
                    5,
                    forecast_rps=usual / 60 * random.uniform(0.8, 1.2, jobs),
                    predicted_tail_latency_s=random.gamma(4, 0.1, jobs),
                    next_minute_deciles_rps=np.sort(random.gamma(9, 1, (jobs, 9)), axis=1),
                    marginal_value_up=random.random(jobs),
                    marginal_value_down=random.random(jobs),
                    authority=authority,
                )
                target = wanted
            yield Step(seen, plan, plan.target, 0.02)
