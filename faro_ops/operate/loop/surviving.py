"""Read what the last leader knew when this process begins to lead, and save it after ticks.

The stored state wins over the process's own journal, which may be days older, unless this host
itself has written it and its journal goes on later. While it cannot be read, a policy with earned
authority changes nothing, and reading is tried again.
"""

import math
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, fields, replace

import numpy as np

from faro_lib.control import Memory
from faro_lib.protocol import Observation
from faro_lib.workload import Job
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S, TOLERANCE
from faro_ops.operate.background import in_thread
from faro_ops.operate.limits.authority import Authority, AuthorityState
from faro_ops.operate.limits.held import loop_of, with_loop
from faro_ops.operate.loop import service_times
from faro_ops.operate.memory.run_state import RememberedJob, RunState, Store, Unusable

SAVE_EVERY_S = 60.0
FLUSH_S = 5.0  # how long the end of a run waits until the state is saved
LEVEL = "level"
COUNTED_S = "counted_s"  # in place of the column `minute`: Unix time at which this minute ended


@dataclass(frozen=True, slots=True)
class RunTime:
    """Converts times of a run to Unix times, because every run has its own time 0."""

    origin_s: float = 0.0  # Unix time of time 0
    scale: float = 1.0  # seconds of the run per second

    def unix_s(self, run_s: float) -> float:
        return self.origin_s + run_s / self.scale

    def run_s(self, unix_s: float) -> float:
        return (unix_s - self.origin_s) * self.scale


class Surviving:
    """The state that survives this process: restored by `begin`, saved by `after_tick`.

    store : where it is kept.
    report : called with a line when it cannot be read or saved, once per outage.
    writer : name of this host.
    now_s : returns the time on a clock that never jumps.
    """

    def __init__(
        self,
        store: Store,
        report: Callable[[str], None] = lambda line: None,
        writer: str = "",
        now_s: Callable[[], float] = time.monotonic,
    ):
        self._store = store
        self._report = report
        self._writer = writer or os.environ.get("HOSTNAME") or socket.gethostname()
        self._now_s = now_s
        self._state: RunState | None = None  # the newest, stored or not
        self._saved: RunState | None = None  # as last saved
        self._known = False  # whether the stored state has been read
        self._told = False  # whether the present outage has been reported
        self._saved_s = -math.inf
        self._reading: Future[RunState | None] | None = None
        self._saving: Future[RunState] | None = None
        self._jobs: tuple[Job, ...] = ()
        self._time = RunTime()

    # --- at the beginning --------------------------------------------------------------------

    def begin(
        self, memory: Memory, jobs: tuple[Job, ...], time: RunTime, now_s: float, past_s: float
    ) -> Memory:
        """The memory for the first tick of a pass. Call it only once this process leads.

        now_s, past_s : times of the run: now, and of the last tick of the journal that `memory`
            resumes; -inf without one.
        """
        self._jobs, self._time, self._known = jobs, time, False
        try:
            stored = self._store.read()
        except (OSError, Unusable) as error:
            return self._unknown(memory, error)
        return self._adopted(memory, stored, now_s, past_s)

    def _adopted(
        self, memory: Memory, stored: RunState | None, now_s: float, past_s: float
    ) -> Memory:
        self._known, self._told, self._saved = True, False, stored
        own = self._state
        if own and (stored is None or (stored.writer == self._writer and own.at_s >= stored.at_s)):
            stored = own  # this process has gone on since it saved
        self._state = stored
        if stored is None:
            return with_authority_known(memory, True)
        newer_journal = stored.writer == self._writer and self._time.unix_s(past_s) >= stored.at_s
        memory = restored(memory, stored, self._jobs, self._time, now_s, only_lost=newer_journal)
        section = stored.sections.get(service_times.SECTION)
        memory, problem = service_times.resumed(memory, section, self._jobs, self._time, now_s)
        if problem:
            self._report(problem)
        return memory

    def _unknown(self, memory: Memory, error: Exception) -> Memory:
        if not self._told:
            self._told = True
            if isinstance(memory.state, AuthorityState):
                effect = "no replica or bound is changed until it can be read"
            else:
                effect = "the run begins without it"
            self._report(f"the state of the last leader in {self._store.place}: {error}; {effect}")
        return with_authority_known(memory, False)

    # --- after a tick ------------------------------------------------------------------------

    def after_tick(self, memory: Memory, observation: Observation) -> Memory:
        """Save what has changed, at most once in SAVE_EVERY_S; the memory for the next tick.

        If the stored state could not be read before, try again, without waiting for it.
        """
        if not self._known:
            return self._read_again(memory, observation.now_s)
        self._state = state_after(
            self._state, self._writer, memory, self._jobs, self._time, observation.now_s
        )
        if self._saving and self._saving.done():
            self._note_saved(self._saving)
        due = self._now_s() - self._saved_s >= SAVE_EVERY_S
        if due and self._saving is None and _changed(self._saved, self._state):
            self._save(self._state)
        return memory

    def flush(self) -> None:
        """Save what has changed since, at the end of a pass; waits at most FLUSH_S."""
        if not self._known or self._state is None:
            return
        if self._saving:
            wait((self._saving,), FLUSH_S)
            if not self._saving.done():
                return
            self._note_saved(self._saving)
        if _changed(self._saved, self._state):
            saving = self._save(self._state)
            wait((saving,), FLUSH_S)
            if saving.done():
                self._note_saved(saving)

    def _read_again(self, memory: Memory, now_s: float) -> Memory:
        if self._reading is None:
            self._reading = in_thread(self._store.read)
        if not self._reading.done():
            return memory
        reading, self._reading = self._reading, None
        try:
            stored = reading.result()
        except (OSError, Unusable) as error:
            return self._unknown(memory, error)
        self._report(f"the state of the last leader is read from {self._store.place}")
        return self._adopted(memory, stored, now_s, -math.inf)

    def _save(self, state: RunState) -> Future[RunState]:
        """Begin to save a state in a thread."""

        def save() -> RunState:
            self._store.write(state)
            return state

        self._saved_s = self._now_s()
        self._saving = in_thread(save)
        return self._saving

    def _note_saved(self, saving: Future[RunState]) -> None:
        """Note the outcome of a save that has ended."""
        self._saving = None
        try:
            self._saved = saving.result()
        except (OSError, ValueError) as error:
            if not self._told:
                self._told = True
                self._report(f"{self._store.place}: the state of this run is not saved: {error}")
            return
        self._told = False


def _changed(saved: RunState | None, now: RunState) -> bool:
    """Whether two states differ in more than their time and writer."""
    if saved is None:
        return True
    return saved.jobs != now.jobs or saved.sections != now.sections


# --- between the memory of the loop and the state -------------------------------------------------


def state_after(
    before: RunState | None,
    writer: str,
    memory: Memory,
    jobs: tuple[Job, ...],
    time: RunTime,
    now_s: float,
) -> RunState:
    """The state after a tick at `now_s`.

    It keeps the sections of the state `before` that this run does not write.
    """
    at_s = time.unix_s(now_s)
    earlier = before.jobs if before else {}
    rows = {
        name: replace(row, since_s=_since_s(earlier.get(name), row, at_s))
        for name, row in remembered_jobs(memory, jobs, time).items()
    }
    sections = dict(before.sections) if before else {}
    learned = service_times.section_of(memory, jobs, time)
    if learned is not None:
        sections[service_times.SECTION] = learned
    if before is None:
        return RunState(at_s, writer, rows, sections)
    return replace(before, at_s=at_s, writer=writer, jobs=rows, sections=sections)


def _since_s(before: RememberedJob | None, now: RememberedJob, at_s: float) -> float:
    """Unix time since which a job's level is in force; 0 if the run does not earn authority."""
    if now.authority is None:
        return 0.0
    if before is None or before.authority is None:
        return at_s
    return before.since_s if before.authority.get(LEVEL) == now.authority[LEVEL] else at_s


def remembered_jobs(
    memory: Memory, jobs: tuple[Job, ...], time: RunTime
) -> dict[str, RememberedJob]:
    """What is remembered about each job, from the memory of the loop."""
    contest = np.broadcast_to(memory.guard.contest, len(jobs))
    loop = loop_of(memory.state)
    lost = np.zeros(len(jobs)) if loop is None else loop.lost
    authority = memory.state.authority if isinstance(memory.state, AuthorityState) else None
    return {
        job.name: RememberedJob(
            None if authority is None else _columns(authority, n, time),
            contest=int(contest[n]),
            lost_utility=float(lost[n]),
        )
        for n, job in enumerate(jobs)
    }


def _columns(authority: Authority, job: int, time: RunTime) -> dict[str, float]:
    """One job's row of `authority` by name, with a Unix time in place of the run's minute."""
    row = {one.name: float(getattr(authority, one.name)[job]) for one in fields(authority)}
    minute = row.pop("minute")
    return row | {COUNTED_S: time.unix_s(MINUTE_S * minute)}


def restored(
    memory: Memory,
    state: RunState,
    jobs: tuple[Job, ...],
    time: RunTime,
    now_s: float,
    only_lost: bool = False,
) -> Memory:
    """`memory` with what `state` knows about the jobs in it.

    only_lost : take only the lost utility, because the rest of `memory` is newer.
    """
    known = np.array([job.name in state.jobs for job in jobs])
    rows = [state.jobs.get(job.name, RememberedJob()) for job in jobs]
    loop = loop_of(memory.state)
    age_s = now_s - time.run_s(state.at_s)
    if loop is not None and age_s < DAY_MINUTES * MINUTE_S:
        lost = np.where(known, [one.lost_utility for one in rows], loop.lost)
        memory = replace(memory, state=with_loop(memory.state, replace(loop, lost=lost)))
    if not only_lost:
        contest = np.where(known, [one.contest for one in rows], memory.guard.contest)
        memory = replace(memory, guard=replace(memory.guard, contest=contest))
        if isinstance(memory.state, AuthorityState):
            authority = _authority(rows, time, now_s)
            memory = replace(memory, state=replace(memory.state, authority=authority))
    return with_authority_known(memory, True)


def _authority(rows: list[RememberedJob], time: RunTime, now_s: float) -> Authority:
    """The recorded authority of jobs; a job without a record starts without any."""
    names = [one.name for one in fields(Authority)]
    none = dict(zip(names, Authority.none(1).to_array()[0].tolist()))
    columns = []
    for row in rows:
        recorded = none | dict(row.authority or {})
        if COUNTED_S in recorded:
            # Not later than now, although the clock of the last leader may have been ahead.
            counted_s = min(time.run_s(recorded[COUNTED_S]), now_s)
            recorded["minute"] = max(0.0, math.floor(counted_s / MINUTE_S + TOLERANCE))
        columns.append([recorded[name] for name in names])
    return Authority.from_array(np.array(columns, float))


def with_authority_known(memory: Memory, known: bool) -> Memory:
    """`memory`, in which a policy with earned authority changes nothing if it is not `known`."""
    if not isinstance(memory.state, AuthorityState):
        return memory
    return replace(memory, state=replace(memory.state, known=known))
