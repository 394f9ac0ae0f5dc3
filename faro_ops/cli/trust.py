"""`faro trust`: show how much `faro run --earn` may change each service, and the evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from faro_ops.cli.shared import option, say, text_table

if TYPE_CHECKING:
    from faro_lib.control import Step
    from faro_lib.workload import Job
    from faro_ops.controller.journal import Header, Tick
    from faro_ops.policies.authority import Authority


def trust(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run --earn`.")],
    as_json: Annotated[bool, option("Print one JSON object per job.", "--json")] = False,
) -> None:
    """Show how much Faro may change each service, and why."""
    from faro_ops.controller.journal import parts
    from faro_ops.policies.authority import ALPHA, LEVELS, Authority
    from faro_ops.policies.protocol import live_plan

    header, ticks = parts(journal)[-1]
    recorded = [
        (one.step.observation.now_s, Authority.from_array(columns))
        for one in ticks
        if (columns := live_plan(one.step.plan).authority) is not None
    ]
    if not recorded:
        raise ValueError(f"{journal}: no authority is recorded; start `faro run` with --earn")
    at_s, now = recorded[-1]
    rows = []
    for n, job in enumerate(header.jobs):
        changes = [
            time_s for (_, old), (time_s, new) in pairwise(recorded) if old.level[n] != new.level[n]
        ]
        row = {
            "job": job.name,
            "level": LEVELS[int(now.level[n])],
            "since_s": [header.start_s, *changes][-1],
            "doubt": round(float(now.doubt[n]), 3),
            "trust": round(float(now.trust[n]), 3),
            "strikes": round(float(now.strikes[n]), 3),
        }
        rows.append(row)
    if as_json:
        print("\n".join(json.dumps(row) for row in rows))
        return
    print(f"at {at_s:g} s; a doubt of {2 / ALPHA:g} takes the level away, this much trust earns")
    print("the next one, and two strikes (minutes with metrics that cannot be right) take it away")
    print(text_table(rows))


def announcing(jobs: tuple[Job, ...]) -> Callable[[Step], None]:
    """A function that takes each step of the loop and logs changes of authority levels."""
    from faro_ops.policies.authority import LEVELS
    from faro_ops.policies.protocol import live_plan

    last: list[str] = []

    def listen(step: Step) -> None:
        columns = live_plan(step.plan).authority
        if columns is None:
            return
        levels = [LEVELS[int(level)] for level in columns[:, 0]]
        for job, before, after in zip(jobs, last or levels, levels):
            if before != after:
                say(f"job {job.name!r}: authority {before} -> {after}")
        last[:] = levels

    return listen


def recorded_authority(
    header: Header | None, ticks: list[Tick], jobs: tuple[Job, ...]
) -> Authority:
    """Return the authority (how much Faro may change each job) with which a resumed run starts.

    A resumed policy first repeats its decisions on the last REPLAYED_TICKS recorded ticks. It
    therefore starts with the authority recorded in the first of these ticks. If jobs were added or
    removed, no decisions are repeated, and the authority recorded in the last tick is used. A job
    without a recorded authority starts at the level ADVISE.
    """
    import numpy as np

    from faro_ops.controller.journal import REPLAYED_TICKS
    from faro_ops.policies.authority import Authority
    from faro_ops.policies.protocol import live_plan

    none = Authority.none(len(jobs))
    if header is None or not ticks:
        return none
    names = [job.name for job in header.jobs]
    same_jobs = names == [job.name for job in jobs]
    first = ticks[-REPLAYED_TICKS:][0] if same_jobs else ticks[-1]
    columns = live_plan(first.step.plan).authority
    if columns is None:
        return none
    recorded = dict(zip(names, columns))
    # (jobs, columns)
    rows = [recorded.get(job.name, row) for job, row in zip(jobs, none.to_array())]
    return Authority.from_array(np.stack(rows))
