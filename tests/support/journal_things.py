"""Journals for tests: their lines, full disks, and ticks of many jobs without a policy."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from observations import observed

from faro_lib.control.tick import Step
from faro_lib.workload import Job
from faro_ops.journal import database
from faro_ops.journal.lines import exported_lines
from faro_ops.journal.reading import recorded
from faro_ops.journal.ticks import Header
from faro_ops.operate.limits.authority import Authority
from faro_ops.protocol import LiveGuardrails, LivePlan, live_observation

TICK_S = 10.0


def exported(path: Path) -> list[str]:
    """The lines of `faro export`."""
    lines, header = [], None
    for of_part, tick in recorded(path):
        lines += exported_lines(of_part, tick, begins=of_part is not header)
        header = of_part
    return lines


def edited(path: Path, old: str, new: str) -> Path:
    """A file with the lines of a journal, in which a text is replaced."""
    file = path.with_name(f"{path.name}.jsonl")
    file.write_text("".join(line.replace(old, new) + "\n" for line in exported(path)))
    return file


def count_ticks(path: Path) -> int:
    """How many ticks a controller has written so far; 0 without a journal."""
    with suppress(FileNotFoundError, ValueError):
        return sum(1 for _ in recorded(path))
    return 0


def fill_disk(monkeypatch: pytest.MonkeyPatch, full: Callable[[], bool]) -> None:
    """Make SQLite report a full disk at each write of ticks while `full()`."""
    insert = database.insert

    def on_full_disk(*of: Any) -> None:
        if full():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        insert(*of)

    monkeypatch.setattr(database, "insert", on_full_disk)


def header_of(jobs: int) -> Header:
    """The header of a run of `jobs` jobs that earns its authority."""
    table = tuple(Job(f"service-{n}", slo_s=0.4, max_replicas=50) for n in range(jobs))
    return Header("Faro-Sum", table, LiveGuardrails(), TICK_S, True, origin_s=0)


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
