"""The brake of a live loop: how much a tick may take from the jobs, whatever made it want to.

A plan may be wrong because a count or the capacity is wrong for a minute. Replicas that it removes
are missed at once, and a new replica takes its cold start. So within a minute, at most a share of
all replicas is removed (`LiveGuardrails.max_scale_down`). Removals that make room for new replicas
count, too, because on a full cluster all removals do; the new replicas wait for the room. If the
capacity is below the sum of the minima, no job loses replicas below its minimum, except to one of
larger or equal weight.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.control import Step
from faro_lib.control.limits import Known, Wanted, limit_scaling_actions, with_reason
from faro_lib.protocol import CAPACITY, HOLD, RATE_LIMIT
from faro_lib.workload import Job, JobArrays
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_ops.operate.job_states import MISCONFIGURED, JobStates
from faro_ops.operate.limits.kept import kept_by_others
from faro_ops.protocol import live_observation, live_plan

NAMED = 5  # names of jobs in a message
SOURCE = "minima"  # of reports to the board of job states


# --- what was removed within the last minute ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Falls:
    """What was removed within the last minute, according to the observed counts of the jobs.

    A removal that failed is therefore not counted, and one by another client is.
    """

    # (time of the request in s, number removed, number of all before) of each removal
    recent: tuple[tuple[float, int, int], ...] = ()
    now_s: float = 0.0  # time of the last observation
    counts: np.ndarray | None = None  # (jobs,) at the last observation; NaN for a job not counted
    total: int = 0  # of all jobs at the last observation

    @classmethod
    def unknown(cls, now_s: float, total: int) -> Self:
        """As much as possible may have been removed just before now."""
        return cls(((now_s, total, total),))

    def after(
        self, now_s: float, counts: np.ndarray, counted: np.ndarray, exists: np.ndarray
    ) -> Self:
        """The falls after an observation of `counts` (jobs,).

        counted : the jobs that Faro scales from now on, bool (jobs,). Falls of others will not
            count; a fall counts if Faro scaled its job before it.
        exists : bool (jobs,); a job that is gone has not fallen.
        """
        new = np.where(counted, counts, np.nan)
        recent = tuple(one for one in self.recent if now_s - one[0] < MINUTE_S - TOLERANCE)
        if self.counts is not None and now_s - self.now_s < MINUTE_S - TOLERANCE:
            fallen = int(np.nansum(np.maximum(self.counts - counts, 0)[exists]))
            if fallen:
                recent = (*recent, (self.now_s, fallen, self.total))
        return replace(self, recent=recent, now_s=now_s, counts=new, total=int(counts.sum()))

    def left(self, share: float) -> int:
        """How many may be removed now: within a minute a `share` of all, but at least one.

        A share of 1 is no limit, whatever has been removed.
        """
        if share >= 1:
            return self.total
        fallen = sum(number for _, number, _ in self.recent)
        before = self.recent[0][-1] if self.recent else self.total
        return max(0, max(1, int(share * before + TOLERANCE)) - fallen)


# --- at most a share of the replicas --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Brake:
    """Rules that let at most a `share` of the replicas be removed within a minute."""

    share: float
    replicas: Falls  # what was removed of replicas, and of minReplicas
    floors: Falls

    def slow_down(self, wanted: Wanted, known: Known) -> Wanted:
        """Targets fall only as far as may be removed now, and rise only where that leaves room.

        The removals that make room for the most valuable starts come first, then those that lose
        least (`limit_scaling_actions`). Starts up to a job's minimum come before all others. A
        limited job gets the reason RATE_LIMIT. Jobs that another controller scales keep their
        targets. An order is no guess from data, so what it removes is not limited, but it counts.
        Fewer replicas than it says are left by a loss of capacity, which is limited.
        """
        observation, jobs, target = known.observation, known.arrays, wanted.target
        fall = known.ordered & (target < observation.target) & (target >= jobs.max_replicas)
        free = kept_by_others(known) | fall
        now = np.where(observation.exists & ~free, observation.target, target)
        gain = wanted.plan.marginal_value_down
        gain = np.zeros(len(now)) if gain is None else gain
        urgent = replace(
            wanted.plan,
            target=target,
            marginal_value_down=np.where(now < jobs.min_replicas, np.nan, gain),
        )
        left = self.replicas.left(self.share)
        limited = limit_scaling_actions(urgent, now, observation.capacity, jobs.cores, np.inf, left)
        limited = within_quotas(limited, now, target, jobs)
        reason = with_reason(wanted.plan.reason, limited != target, RATE_LIMIT)
        return replace(wanted, plan=replace(wanted.plan, reason=reason), target=limited)

    def slow_floors(self, wanted: Wanted, known: Known) -> Wanted:
        """Floors fall no faster than `slow_down` lets targets fall.

        An HPA may remove replicas down to its minReplicas by itself.
        """
        plan, observation = live_plan(wanted.plan), live_observation(known.observation)
        if plan.floor is None or observation.floor is None:
            return wanted
        now = observation.floor
        ours = kept_by_others(known) | known.ordered
        planned = (plan.floor >= 0) & observation.exists & ~ours
        lowered = replace(plan, target=np.where(planned, plan.floor, now))
        left = self.floors.left(self.share)
        limited = limit_scaling_actions(lowered, now, np.inf, known.arrays.cores, np.inf, left)
        floor = np.where(planned, np.minimum(limited, wanted.target), plan.floor)
        return replace(wanted, plan=replace(plan, floor=floor))


def within_quotas(
    limited: np.ndarray, now: np.ndarray, target: np.ndarray, jobs: JobArrays
) -> np.ndarray:
    """`limited` without the starts for which removals that did not take place left no quota.

    All arrays have shape (jobs,): the limited, the present and the planned targets.
    """
    limited = limited.copy()
    held = np.bincount(jobs.group, (limited > target) & (limited <= now), len(jobs.quota)) > 0
    for job in np.flatnonzero((limited > now) & held[jobs.group]):
        used = np.bincount(jobs.group, limited * jobs.cores, len(jobs.quota))
        over = float((used - jobs.quota)[jobs.group[job]])
        if over > TOLERANCE:
            fewer = int(np.ceil(over / jobs.cores[job] - TOLERANCE))
            limited[job] = max(now[job], limited[job] - fewer)
    return limited


# --- the minima -----------------------------------------------------------------------------------


def minima(wanted: Wanted, known: Known) -> Wanted:
    """Jobs keep what they can of their minima where the capacity is below the sum of the minima.

    The rule `capacity` takes from all jobs alike then. Here, minima are kept in the order of the
    weights. A job whose minimum does not fit keeps the replicas that serve, up to its minimum: if
    all of them run, they have room, and removing one helps nobody. It gives them up, the lightest
    job first, only while a heavier job misses a replica of its own minimum, and never the last one.
    Replicas that find no room are Pending. Jobs below their minimum get the reason CAPACITY.
    """
    observation, jobs, plan = known.observation, known.arrays, wanted.plan
    scaled = observation.exists & ~kept_by_others(known)
    minimum = np.where(scaled, jobs.min_replicas, 0)
    if not (wanted.target < minimum).any():
        return wanted
    others = np.where(minimum > 0, 0, wanted.target)
    room = observation.capacity - float(others @ jobs.cores)
    fitting = fitting_minima(minimum, observation.running, jobs, room)
    last = np.maximum(fitting, np.minimum(minimum, 1))
    kept = np.maximum(last, np.minimum(observation.running, minimum))
    missed = (fitting > observation.running).any()
    while missed and float(kept @ jobs.cores) > room + TOLERANCE and (kept > last).any():
        lightest = np.where(kept > last, jobs.weight, np.inf).min()
        gives = (kept > last) & (jobs.weight == lightest)
        kept[np.argmax(np.where(gives, (kept - last) * jobs.cores, -np.inf))] -= 1
    kept = np.where(minimum > 0, kept, wanted.target)
    reason = with_reason(plan.reason, kept < minimum, CAPACITY)
    unchanged = (kept == plan.target) & (np.array(reason) == CAPACITY)
    reason = with_reason(reason, unchanged, HOLD)
    return replace(wanted, plan=replace(plan, reason=reason), target=kept)


def fitting_minima(
    minimum: np.ndarray, running: np.ndarray, jobs: JobArrays, room: float
) -> np.ndarray:
    """How many replicas (jobs,) of each job's `minimum` fit into `room` cores.

    Jobs with a larger weight come first. Jobs of equal weight get replicas in turn, the one with
    the most `running` replicas first.

    >>> from faro_lib.workload import arrays_of
    >>> jobs = arrays_of((Job("a"), Job("b", weight=2.0), Job("c")))
    >>> fitting_minima(np.array([2, 2, 2]), np.array([1, 0, 2]), jobs, 5.0).tolist()
    [1, 2, 2]
    """
    fitting = np.zeros_like(minimum)
    while True:
        missing = (fitting < minimum) & (jobs.cores <= room + TOLERANCE)
        if not missing.any():
            return fitting
        heaviest = np.where(missing, jobs.weight, -np.inf).max()
        turn = np.flatnonzero(missing & (jobs.weight == heaviest))
        job = min(turn, key=lambda job: (fitting[job], -running[job]))
        fitting[job] += 1
        room -= jobs.cores[job]


def below_minimum(jobs: tuple[Job, ...], step: Step) -> dict[str, str]:
    """The jobs that a tick leaves below their minimum, by name: the reason.

    They lack capacity, or they wait until the brake lets other jobs lose replicas.
    """
    exists, why = step.observation.exists, np.array(step.plan.reason)
    minimum = np.array([job.min_replicas for job in jobs])
    below = exists & (step.target < minimum)
    waits = below & (why == RATE_LIMIT)
    short = below & (why == CAPACITY)
    names = [job.name for job, here, is_short in zip(jobs, exists, short) if here and not is_short]
    held = f"holds the minima of {in_words(names)} only" if names else "holds no job's minimum"
    reason = f"a capacity of {step.observation.capacity:g} cores {held}"
    found = {
        job.name: f"{reason}; add cores, or lower min_replicas"
        for job, is_short in zip(jobs, short)
        if is_short
    }
    later = "its cores are in use, and --max-scale-down frees them step by step"
    return found | {job.name: later for job, waiting in zip(jobs, waits) if waiting}


class MinimaReport:
    """Reports on the board which jobs are below their minimum; called with each step.

    say : called with one line when these jobs, or the capacity, have changed.
    short : job -> why it is below its minimum, at the last step.
    """

    def __init__(
        self, jobs: tuple[Job, ...], states: JobStates, say: Callable[[str], object] = print
    ):
        self._jobs = jobs
        self._states = states
        self._say = say
        self.short: dict[str, str] = {}

    def __call__(self, step: Step) -> None:
        short = below_minimum(self._jobs, step)
        self._states.report_all(MISCONFIGURED, short, by=SOURCE)
        if short and short != self.short:
            reason = next(iter(short.values()))
            self._say(f"below their minimum: {in_words(list(short))}; {reason}")
        if self.short and not short:
            self._say("all minima are kept")
        self.short = short


def in_words(names: list[str]) -> str:
    """Names as a list in a sentence, with at most NAMED of them.

    >>> in_words(["a", "b", "c"])
    'a, b and c'
    """
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} others"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
