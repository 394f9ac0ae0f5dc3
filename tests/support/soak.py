"""Hours of the controllers of `faro run` on fakes of Kubernetes and Ray, with a fault a minute.

Time passes as fast as the controllers decide. Two controllers share a lease; `soak_faults.py` has
the faults, `soak_invariants.py` what must hold, `soak_world.py` the worlds.

    python tests/support/soak.py --hours 24 --world kubernetes --seed 3

prints a table of what happened. `--fault NAME` has only this fault, and `--pending` those,
too, that the code is known not to survive (PENDING).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from kube_things import FAROPLAN
from soak_faults import CEILINGS, FAULTS, NONE, ON_TRIAL, TROUBLED, Fault, faults_of
from soak_invariants import JOURNAL_BYTES, Figures, Invariants, Twin
from soak_world import PLAN, USUAL, WORLDS, Sizes, World, in_world

# Faults after which an invariant is known not to hold. Each line is an open finding.
PENDING: tuple[str, ...] = ()
CONTROLLERS = 2
STEP_S = 1.0  # of what the cluster's own controllers do
LOOK_S = 5.0  # between looks at the invariants
QUIET_S = 300.0  # before the first fault, so that each job has its first plan
MINUTE_S = 60.0
TWIN_H = 2.0  # shortest twin, which several soaks share
TRIALS = 0.1  # share of the faults that are about the evidence about a service
TAIL_H = 0.5  # that a soak goes on at most, until a job is as before its last trial
BETWEEN_S = 30.0  # after a fault, so that the next tick sees its end


def pass_time(world: World, seconds: float, checked: Invariants, twin: Twin | None) -> None:
    """Let the time pass, and look at the invariants."""
    virtual = world.clock
    end_s = virtual.now_s + seconds
    look_s = virtual.now_s + LOOK_S
    while virtual.now_s < end_s - 1e-6:
        virtual.sleep(min(STEP_S, end_s - virtual.now_s))
        world.reconcile()
        world.restart_ended()
        if virtual.now_s >= look_s:
            look_s += LOOK_S
            checked.look(world)
            if twin is not None:
                twin.add(virtual.now_s - checked.start_s, world.targets())


def start(world: World, checked: Invariants, twin: Twin | None) -> None:
    """Wait until each job has its first plan and the standing order is in force."""
    checked.start(world)
    pass_time(world, MINUTE_S, checked, twin)
    if world.sizes.ordered and world.find(FAROPLAN, PLAN):
        world.order(*world.standing())
    pass_time(world, QUIET_S - MINUTE_S, checked, twin)


@cache
def twin_of(kind: str, hours: float, sizes: Sizes = USUAL) -> Twin:
    """The targets in the same world without faults, with one controller."""
    checked, twin = Invariants(None), Twin()
    with in_world(kind, 1, checked.step, checked.failure, sizes) as world:
        start(world, checked, twin)
        pass_time(world, 3600 * hours, checked, twin)
    assert not checked.figures.broken, checked.figures.broken
    return twin


def befall(world: World, checked: Invariants, fault: Fault, job: str, least_s: float = 0.0) -> None:
    """Let a fault befall a job, and some time pass after it; at least `least_s` in all."""
    until_s = world.clock.now_s + least_s
    checked.begin(world, fault, job)
    fault.begin(world, job)
    if fault.halfway:
        pass_time(world, fault.lasts_s / 2, checked, None)
        checked.halfway(world)
        fault.halfway(world, job)
        pass_time(world, fault.lasts_s / 2, checked, None)
    else:
        pass_time(world, fault.lasts_s, checked, None)
    checked.end(world)
    fault.end(world, job)
    pass_time(world, max(BETWEEN_S, until_s - world.clock.now_s), checked, None)


def next_fault(
    rng: np.random.Generator, faults: tuple[Fault, ...], is_first: bool
) -> tuple[Fault, str]:
    """A fault and the job that it befalls.

    The first one, and TRIALS of the others, are of the evidence about a service, which last long.
    """
    on_trial = [one for one in faults if one.changes in ON_TRIAL]
    others = [one for one in faults if one.changes not in ON_TRIAL]
    chosen = on_trial if is_first or rng.random() < TRIALS else others
    chosen = chosen or on_trial or others
    return chosen[int(rng.integers(len(chosen)))], str(rng.choice(TROUBLED))


def soak(
    kind: str,
    hours: float,
    seed: int = 0,
    faults: tuple[Fault, ...] | None = None,
) -> Figures:
    """Run the controllers for some hours with a fault a minute.

    kind : "kubernetes", "ceilings" or "ray".
    faults : drawn from these; by default, all of the world that are not PENDING.
    """
    if faults is None:
        faults = tuple(one for one in faults_of(kind) if one.name not in PENDING)
    # The cores that one job leaves raise the ceilings of the others, so they have no twin.
    faults = tuple(one for one in faults if one.lasts_s <= 3600 * hours) or faults
    shorter = tuple(one for one in faults if one.changes not in ON_TRIAL) or (NONE,)
    longest_h = max(one.lasts_s for one in faults) / 3600
    twin_h = max(TWIN_H, math.ceil(hours + longest_h + TAIL_H))
    twin = None if kind == CEILINGS[0] else twin_of(kind, twin_h)
    rng = np.random.default_rng(seed)
    checked = Invariants(twin)
    memory_mb: list[float] = []
    here = psutil.Process()
    with in_world(kind, CONTROLLERS, checked.step, checked.failure) as world:
        start(world, checked, None)
        virtual, begin_s = world.clock, world.clock.now_s
        end_s = begin_s + 3600 * hours
        # It goes on until a job that is compared with its twin must be as before.
        while virtual.now_s < end_s or any(checked.on_trial(world, job) for job in TROUBLED):
            wanted = faults if virtual.now_s < end_s else shorter
            fault, job = next_fault(rng, wanted, not checked.figures.faults)
            if checked.on_trial(world, job):
                job = next(one for one in TROUBLED if one != job)
            befall(world, checked, fault, job, MINUTE_S)
            memory_mb.append(here.memory_info().rss / 1e6)
        figures = checked.figures
        files = [path for path in world.folder.rglob("*") if path.is_file()]
        figures.journal_bytes = sum(path.stat().st_size for path in files)
        figures.starts = sum(one.starts for one in world.pods)
        if figures.journal_bytes > JOURNAL_BYTES * max(figures.ticks, 1):
            checked.note(world, f"the journals have {figures.journal_bytes} bytes")
    figures.hours = hours
    early = memory_mb[min(len(memory_mb) - 1, 60)]
    figures.memory_mb = early, memory_mb[-1]
    return figures


def table(figures: Figures) -> str:
    """What happened, as a table."""
    rows = [
        ("ticks", f"{figures.ticks:,}"),
        ("faults", f"{sum(figures.faults.values()):,} of {len(figures.faults)} kinds"),
        ("controllers started", f"{figures.starts:,}"),
        ("hand-overs of the lease", f"{figures.handovers:,}"),
        *(
            (f"failures counted: {reason}", f"{n:,}")
            for reason, n in sorted(figures.failures.items())
        ),
        ("targets changed per hour and job, at most", f"{max(figures.moves.values(), default=0)}"),
        ("API calls in a minute, at most", f"{figures.most_calls:,}"),
        ("journal, bytes a tick", f"{figures.journal_bytes / max(figures.ticks, 1):,.0f}"),
        ("memory after one hour and at the end", "{:.0f} and {:.0f} MB".format(*figures.memory_mb)),
        ("invariants checked", f"{figures.checks:,}"),
        ("invariants broken", f"{len(figures.broken):,}"),
    ]
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


SEEDS_HEAD = """| world | seed | faults | kinds | hand-overs | ticks | checks | violations |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def seed_row(world: str, seed: int, figures: Figures) -> str:
    """A row of the table of seeds."""
    numbers = (
        seed,
        sum(figures.faults.values()),
        len(figures.faults),
        figures.handovers,
        figures.ticks,
        figures.checks,
        len(figures.broken),
    )
    return f"| {world} | " + " | ".join(f"{number:,}" for number in numbers) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--world", choices=sorted(WORLDS), default="kubernetes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from --seed on")
    parser.add_argument("--fault", action="append", default=[], help="only this fault; repeatable")
    parser.add_argument("--rows", action="store_true", help="one row per seed, as in the docs")
    parser.add_argument("--pending", action="store_true", help="also the faults in PENDING")
    arguments = parser.parse_args()
    known = [one.name for one in FAULTS]
    if unknown := [name for name in arguments.fault if name not in known]:
        parser.error(f"--fault {unknown[0]!r} is unknown; accepted: {', '.join(known)}")
    faults = faults_of(arguments.world, tuple(arguments.fault))
    if not arguments.pending and not arguments.fault:
        faults = tuple(one for one in faults if one.name not in PENDING)
    worst = 0
    if arguments.rows:
        print(SEEDS_HEAD)
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        began = time.perf_counter()
        seen = soak(arguments.world, arguments.hours, seed, faults)
        took_s = time.perf_counter() - began
        if arguments.rows:
            print(seed_row(arguments.world, seed, seen), flush=True)
        else:
            print(f"{arguments.world}, seed {seed}: {arguments.hours:g} h in {took_s:.0f} s\n")
            print(table(seen))
        for line in seen.broken:
            print(line)
        for name, count in seen.broken_by_fault.most_common():
            print(f"{count:4} broken after: {name}")
        worst = max(worst, len(seen.broken))
    return min(worst, 1)


if __name__ == "__main__":
    sys.exit(main())
