"""The live control loop: observe, decide and apply at every tick, and survive every failure."""

import threading
import warnings
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.control import Memory, PolicyFailed, Step
from faro_lib.control.guardrails import Guard
from faro_lib.control.loop import request, tick_times
from faro_lib.forecast import Forecaster
from faro_lib.protocol import (
    CONTESTED,
    DEADLINE_EXCEEDED,
    ENDED,
    FAILED,
    HISTORY_MINUTES,
    MISSING,
    Cluster,
    Observation,
    Policy,
)
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.journal.ticks import Header, Trouble
from faro_ops.journal.writing import Journal
from faro_ops.operate.clock import Clock
from faro_ops.operate.job_states import JobStates
from faro_ops.operate.limits.held import loop_of, with_loop
from faro_ops.operate.loop.job_reports import note_states, writer
from faro_ops.operate.loop.late_counts import Folded, lost_counts
from faro_ops.operate.loop.live_memory import LiveMemory
from faro_ops.operate.loop.renewal import renewed
from faro_ops.operate.loop.resume import next_memory, resume_run
from faro_ops.operate.loop.surviving import RunTime, Surviving
from faro_ops.operate.loop.tick import Deadline, tick
from faro_ops.operate.scaling import NotScaled
from faro_ops.protocol import LIVE_GUARDRAILS, LiveGuardrails, live_observation, live_plan

# Reasons with which `on_failure` is called if something other than the policy fails.
OBSERVE = "observe"
APPLY = "apply"
JOURNAL = "journal"
CLOCK = "clock"
REPORT = "report"
STATE = "state"
LATE_COUNTS = "late-counts"
OnFailure = Callable[[str, str], None] | None  # called with (reason, message of one line)


def run(
    cluster: Cluster,
    policy: Policy,
    jobs: tuple[Job, ...],
    until_s: float = np.inf,
    *,
    guardrails: LiveGuardrails = LIVE_GUARDRAILS,
    apply: bool = True,
    journal: str | Path | Journal | None = None,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_failure: OnFailure = None,
    changes: tuple[str, ...] = (),
    changed: Callable[[], bool] = lambda: False,
    newest: Callable[[], Forecaster | None] = lambda: None,
    frozen: Callable[[], Collection[str]] = tuple,
    states: JobStates | None = None,
    surviving: Surviving | None = None,
    takes_over: bool = False,
) -> None:
    """Observe, decide and apply at every multiple of `policy.tick_s`.

    The loop ends before `until_s`, or when `stop` is set. With `on_failure`, it survives every
    failure. If the cluster cannot be observed, the policy gets the last observation with loads and
    latencies marked as missing. A failed scaling request is repeated at the next tick. When the
    loop ends, the replicas stay as they are.

    Parameters
    ----------
    apply : False for a dry run, which records plans but requests nothing.
    journal : folder that records every tick, or an open Journal. If it has ticks, the run resumes
        from them, and `clock` must have the scale in the journal's header, and its origin too,
        unless `changes` say that time 0 has moved. `resume_run` says which settings may differ.
    clock : clock of a live run, or None if the cluster simulates time. A live run skips late ticks.
    on_step : called after every tick.
    on_failure : called with (reason, message) for every failure. Without it, an exception is raised
        if the first observation, a scaling request, a journal write, `on_step` or `newest` fails.
        A failed policy causes a warning.
    changes : texts that describe an operator's changes to `jobs` and `guardrails` since the last
        run with this journal.
    changed : called before every tick; the run ends when this call returns True.
    newest : called before every tick; returns a newly fitted forecaster, or None to keep the
        current one.
    frozen : called at every tick; returns the names of the jobs that keep their targets, drop
        rates and bounds, whatever the policy plans. The loop goes on observing, recording and
        reporting.
    states : board to which the loop reports what it notices about single jobs; the journal records
        the jobs that are not fine.
    surviving : restores what the last leader knew, and saves it after ticks.
    takes_over : whether another controller may have led since the last tick of the journal. The
        targets that the cluster has at the first tick are then no changes by other clients.
    """
    board = states or JobStates()
    stop = stop or (clock.stop if clock else threading.Event())
    start_s = max(0.0, clock.now_s) if clock else 0.0
    memory = Memory.start(policy, jobs, start_s)
    observation: Observation | None = None
    deadline = Deadline(guardrails.deadline_s)
    jump_s = 0
    with ExitStack() as stack:
        records = past = None
        if journal:
            origin_s, scale = (clock.origin_s, clock.scale) if clock else (None, 1.0)
            header = Header(
                policy=policy.name,
                jobs=jobs,
                guardrails=guardrails,
                tick_s=policy.tick_s,
                apply=apply,
                origin_s=origin_s,
                scale=scale,
                start_s=start_s,
                changes=changes,
            )
            if isinstance(journal, Journal):
                records = journal
            else:
                records = stack.enter_context(Journal(journal))
            past = resume_run(records, policy, header, clock.now_s if clock else np.inf)
            if past:
                memory, start_s = past.memory, past.observation.now_s
                # If the jobs have changed, the last observation describes other jobs.
                observation = past.observation if past.ticks is not None else None
                # After a long gap, forget the last request, because another controller may have
                # changed the targets.
                gap_s = clock.now_s - start_s if clock else 0.0
                if gap_s > long_gap_s(policy.tick_s):
                    memory, observation = next_memory(memory, False, None), None
                if takes_over:
                    observation = None
        if surviving:
            run_time = RunTime(clock.origin_s, clock.scale) if clock else RunTime()
            past_s = past.observation.now_s if past else -np.inf
            began_s = clock.now_s if clock else start_s
            memory = surviving.begin(memory, jobs, run_time, began_s, past_s)
            if guardrails.force:  # ends the contests that the last leader knew
                memory = replace(memory, guard=replace(memory.guard, contest=0))
            stack.callback(surviving.flush)
        time_s = (lambda: clock.now_s) if clock else None
        for now_s in tick_times(start_s, until_s, policy.tick_s, time_s):
            cluster.advance(now_s)
            if stop.is_set() or changed():
                return
            newer, _ = attempt(FAILED, on_failure, refreshed, memory, newest)
            memory = newer or memory
            if clock and on_failure and clock.jump_s != jump_s:
                moved_s = clock.jump_s - jump_s
                jump_s = clock.jump_s
                # Counts of earlier minutes are now read at other times: they are no late counts.
                memory = replace(LiveMemory.of(memory), folded=Folded())
                message = f"the wall clock jumped by {moved_s:+d} s"
                on_failure(CLOCK, f"{message}; ticks continue at their intervals")
            observation = observed(cluster, now_s, observation, on_failure)
            if observation is None:
                continue
            if takes_over:
                memory, takes_over = adopting(memory, observation), False
            observation = freezing(jobs, frozen(), observation)
            after, step = tick(policy, guardrails, jobs, memory, observation, deadline)
            report_failures(step, on_failure)
            if on_failure and after.folded.lost:
                on_failure(LATE_COUNTS, lost_counts(jobs, after.folded.lost))
            if on_failure and CONTESTED in step.plan.reason:
                on_failure(CONTESTED, contest(jobs, memory.guard, step, cluster))
            error_line, failed = None, None
            if apply:
                error_line, failed = requested(cluster, step, on_failure)
            memory = next_memory(after, apply, error_line, failed)
            note_states(board, jobs, guardrails, after.guard, step, writers_of(cluster))
            if records:  # with `on_failure`, a full disk does not stop the loop
                troubled = troubles_of(board) if states else {}
                record = step, error_line, failed, troubled
                attempt(JOURNAL, on_failure, records.tick, *record)
            if surviving:
                kept, _ = attempt(STATE, on_failure, surviving.after_tick, memory, observation)
                memory = kept or memory
            if on_step:
                attempt(REPORT, on_failure, on_step, replace(step, error=error_line))
    if np.isfinite(until_s) and not stop.is_set():
        cluster.advance(until_s)


def adopting(memory: Memory, observation: Observation) -> LiveMemory:
    """The memory of a new leader: as if the observed targets had been requested last.

    Drop rates stay as requested. Nothing is removed for a minute, because the leader before may
    have removed as much as the brake allows.
    """
    guard = memory.guard
    drop = observation.drop if guard.target is None else guard.drop
    pending = memory.pending.only(np.zeros(len(memory.pending.attempts), bool))
    guard = replace(guard, target=observation.target, drop=drop)
    known = LiveMemory.of(replace(memory, pending=pending, guard=guard))
    return known.not_knowing_falls(live_observation(observation))


def troubles_of(board: JobStates) -> dict[str, Trouble]:
    """What is wrong with the jobs on a board, as the journal records it."""
    return {
        job: Trouble(one.state, one.reason, round(one.since_s))
        for job, one in board.troubled().items()
    }


def long_gap_s(tick_s: float) -> float:
    """Seconds without a tick after which another controller may have changed the targets."""
    return max(MINUTE_S, 2 * tick_s)


def requested(
    cluster: Cluster, step: Step, on_failure: OnFailure
) -> tuple[str | None, tuple[int, ...] | None]:
    """Request the plan of a tick; (error or None, numbers of the jobs that failed).

    The floors, too, if it sets bounds of HPAs. The numbers are None if the error is one of all
    jobs. Without `on_failure`, an error is raised.
    """
    floor = live_plan(step.plan).floor
    bounds = {} if floor is None else {"floor": floor}
    try:
        request(cluster, step, **bounds)
    except Exception as error:
        if on_failure is None:
            raise
        on_failure(APPLY, line_of(error))
        return line_of(error), error.failed if isinstance(error, NotScaled) else None
    return None, None


def refreshed(memory: Memory, newest: Callable[[], Forecaster | None]) -> Memory:
    """The memory with the forecaster that `newest` returns, if any, and the old counts."""
    forecaster, loop = newest(), loop_of(memory.state)
    if forecaster is None or loop is None:
        return memory
    loop = replace(loop, forecaster=renewed(loop.forecaster, forecaster))
    return replace(memory, state=with_loop(memory.state, loop))


def observed(
    cluster: Cluster, now_s: float, last: Observation | None, on_failure: OnFailure
) -> Observation | None:
    """Observe the cluster. If this fails, return `without_data(last)`, or None without a `last`."""
    try:
        return cluster.observe()
    except Exception as error:
        if on_failure:
            on_failure(OBSERVE, line_of(error))
        elif last is None:
            raise  # without `on_failure`, the first observation must succeed
    return None if last is None else without_data(last, now_s)


def freezing(
    jobs: tuple[Job, ...], frozen: Collection[str], observation: Observation
) -> Observation:
    """The observation with the jobs named in `frozen` as held, too (`LiveObservation.held`)."""
    if not frozen:
        return observation
    seen = live_observation(observation)
    held = np.array([job.name in frozen for job in jobs])
    return replace(seen, held=held if seen.held is None else held | seen.held)


def without_data(last: Observation, now_s: float) -> Observation:
    """The observation `last`, moved to the time `now_s`, with loads and latencies as missing."""
    missing = np.full(len(last.target), np.nan)
    minute = max(last.minute, int(now_s // MINUTE_S))
    unknown = np.full((len(missing), minute - last.minute), np.nan)
    history = np.hstack([last.arrivals_per_min, unknown])
    moved = replace(
        last,
        now_s=now_s,
        minute=minute,
        arrivals_per_min=history[:, -HISTORY_MINUTES:],
        mean_latency_s=missing,
        tail_latency_s=missing,
        ongoing=missing,
        arrivals_now=None,
    )
    seen = live_observation(moved)
    age_s = seen.capacity_age_s
    if age_s is not None:
        age_s += now_s - last.now_s
    none: dict[str, Any] = dict.fromkeys((*ENDED, "served_tail_latency_s", "throttled", "busy_s"))
    return replace(seen, capacity_age_s=age_s, **none)


def report_failures(step: Step, on_failure: OnFailure) -> None:
    """Report a tick's failures to `on_failure`. If it is None, warn only of a failed policy."""
    if on_failure is None:
        if step.failure:
            warnings.warn(step.failure, PolicyFailed, stacklevel=3)
        return
    if step.failure:
        on_failure(FAILED, " ".join(step.failure.split()))
    for reason in (DEADLINE_EXCEEDED, MISSING):
        if reason in step.plan.reason:
            on_failure(reason, f"at {step.observation.now_s:g} s")


def contest(jobs: tuple[Job, ...], guard: Guard, step: Step, cluster: Cluster) -> str:
    """A message that names the first contested job, and the client that changes its target."""
    n = step.plan.reason.index(CONTESTED)
    client = writer(writers_of(cluster), n)
    wanted = "" if guard.target is None else f" instead of {guard.target[n]}"
    change = f"{client} keeps setting {step.target[n]} replicas{wanted}"
    return (
        f"job {jobs[n].name!r}: {change}; Faro leaves it alone, and overrules it only with --force"
    )


def writers_of(cluster: Cluster) -> Callable[[int], str | None]:
    """`LiveCluster.writer_of`; a simulated cluster has no other clients."""
    return getattr(cluster, "writer_of", lambda job: None)


def attempt(
    reason: str, on_failure: OnFailure, call: Callable[..., Any], *arguments: Any
) -> tuple[Any, str | None]:
    """Return (result, None), or report an error and return (None, message).

    Without `on_failure`, the error is raised.
    """
    try:
        return call(*arguments), None
    except Exception as error:
        if on_failure is None:
            raise
        on_failure(reason, line_of(error))
        return None, line_of(error)


def line_of(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
