"""The authority that a journal records, from which a resumed run goes on."""

from collections.abc import Callable

import numpy as np

from faro_lib.control import Step
from faro_lib.workload import Job
from faro_ops.journal import writing
from faro_ops.journal.reading import recorded
from faro_ops.journal.ticks import Header, Tick
from faro_ops.log import say
from faro_ops.operate.limits.authority import LEVELS, Authority
from faro_ops.protocol import live_plan


def history_of_authority(journal: str) -> tuple[float, np.ndarray, Authority] | None:
    """The authority in the last part of a journal: (time of its last tick, since when, authority).

    "Since when" is (jobs,): the time in seconds at which each service got its present level. None
    if no authority is recorded. The ticks are read one after the other, so the memory does not grow
    with the journal.
    """
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

    none = Authority.none(len(jobs))
    if header is None or not ticks:
        return none
    names = [job.name for job in header.jobs]
    same_jobs = names == [job.name for job in jobs]
    first = ticks[-writing.REPLAYED_TICKS :][0] if same_jobs else ticks[-1]
    columns = live_plan(first.step.plan).authority
    if columns is None:
        return none
    recorded = dict(zip(names, columns))
    # (jobs, columns)
    rows = [recorded.get(job.name, row) for job, row in zip(jobs, none.to_array())]
    return Authority.from_array(np.stack(rows))
