"""`faro trust`: show how much `faro run --earn` may change each service, and the evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from faro_ops.cli.shared import option, say, text_table

if TYPE_CHECKING:
    import numpy as np

    from faro_lib.control import Step
    from faro_lib.workload import Job
    from faro_ops.journal.ticks import Header, Tick
    from faro_ops.operate.limits.authority import Authority


def trust(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run --earn`.")],
    as_json: Annotated[bool, option("Print one JSON object per job.", "--json")] = False,
) -> None:
    """Show how much Faro may change each service, and why."""
    import numpy as np

    from faro_ops.journal.reading import newest
    from faro_ops.journal.ticks import plain
    from faro_ops.operate.limits.authority import ALPHA, LEVELS
    from faro_ops.protocol import live_plan

    header, ticks = newest(journal)
    earned = history_of_authority(journal)
    if earned is None:
        raise ValueError(f"{journal}: no authority is recorded; start `faro run` with --earn")
    at_s, since_s, now = earned
    plan = live_plan(ticks[-1].step.plan)
    unknown = np.full(len(header.jobs), np.nan)
    factor = unknown if plan.service_factor is None else plan.service_factor
    error = unknown if plan.service_factor_error is None else plan.service_factor_error
    rows = [
        {
            "job": job.name,
            "level": LEVELS[int(now.level[n])],
            "since_s": float(since_s[n]),
            "doubt": round(float(now.doubt[n]), 3),
            "trust": round(float(now.trust[n]), 3),
            "strikes": round(float(now.strikes[n]), 3),
            "service_factor": float(factor[n]),
            "service_factor_error": float(error[n]),
        }
        for n, job in enumerate(header.jobs)
    ]
    if as_json:
        for row in rows:
            print(json.dumps({key: plain(value) for key, value in row.items()}))
        return
    print(f"at {at_s:g} s; a doubt of {2 / ALPHA:g} takes the level away, this much trust earns")
    print("the next one, and two strikes (minutes with metrics that cannot be right) take it away")
    if np.isnan(factor).all():
        rows = [{name: one for name, one in row.items() if "factor" not in name} for row in rows]
    else:
        print("service_factor is the learned service time divided by that of the table")
    print(text_table(rows))


def history_of_authority(journal: str) -> tuple[float, np.ndarray, Authority] | None:
    """The authority in the last part of a journal: (time of its last tick, since when, authority).

    "Since when" is (jobs,): the time in seconds at which each service got its present level. None
    if no authority is recorded. The ticks are read one after the other, so the memory does not grow
    with the journal.
    """
    import numpy as np

    from faro_ops.journal.reading import recorded
    from faro_ops.operate.limits.authority import Authority
    from faro_ops.protocol import live_plan

    of_part: Header | None = None
    last: np.ndarray | None = None  # (jobs, fields) at the last tick
    at_s = 0.0
    since_s = np.empty(0)
    for header, tick in recorded(journal):
        if header is not of_part:
            of_part, last, since_s = header, None, np.full(len(header.jobs), header.start_s)
        columns = live_plan(tick.step.plan).authority
        if columns is None:
            continue
        at_s = tick.step.observation.now_s
        if last is not None:
            since_s = np.where(columns[:, 0] == last[:, 0], since_s, at_s)
        last = columns
    return None if last is None else (at_s, since_s, Authority.from_array(last))


def announcing(jobs: tuple[Job, ...]) -> Callable[[Step], None]:
    """A function that takes each step of the loop and logs changes of authority levels."""
    from faro_ops.operate.limits.authority import LEVELS
    from faro_ops.protocol import live_plan

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

    from faro_ops.journal.writing import REPLAYED_TICKS
    from faro_ops.operate.limits.authority import Authority
    from faro_ops.protocol import live_plan

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
