"""What must hold at any time of a soak, whatever goes wrong.

The twin is the same world without a fault. With ceilings, there is none: the HPAs choose replicas,
and the cores that one job leaves raise the ceilings of others. A bystander is a job that no fault
befalls by itself.

1. A bystander has a target that it has in the twin within LAG_S of this time: the load of each job
   is a slow wave, so a step may come a few minutes earlier or later, for example because another
   controller leads, but no other target is right. After a fault of the data of all jobs, or of the
   capacity, it may lag by AFTER_S and differ by one replica, because forecasts then miss some
   counts. Once a loss of capacity has shrunk it, it may differ by one for good: a plan keeps a
   count that suffices. While less capacity is left than the twin uses, bystanders may have less,
   but never less than their minimum.
2. No job is asked to run fewer replicas than its minimum while it exists. While the capacity is
   enough, a job with requests keeps the replicas that it needs (NEEDED), even if it is in trouble
   or has just been recreated.
3. Targets do not grow beyond the capacity that the controller knows.
4. The standing order, and the order of a fault, are in force or named as not: in a job's state, in
   the reason of the plan, in a failure, in the log, or in the FaroPlan's status.
5. A fault that a controller must report is counted as a failure with the right reason.
6. The job that a fault befalls has the right state on the board, with a reason of one line.
7. A controller that has had a tick ends only if it has lost its lease. One that starts while the
   API server refuses it may end, too.
8. A count of a complete minute is right or missing.
9. Ticks go on: the next one comes within GAP_S, or, if the API server or all controllers are away,
   within GAP_S after the end of the fault.
10. While all jobs are frozen, no target changes.
11. Within a minute, at most MAX_FALL of all replicas are removed, or one, whoever leads. What an
   order removes does not count.
12. A new leader changes no target of a bystander in its first HANDOVER_S, unless the target is
   wrong, or changes in the twin about this time, too.
13. Messages have one line of at most 1,000 characters; calls of the API server, the journal and the
   kept statistics are bounded.
14. A job whose evidence is false (EVIDENCE) never has more than one replica less than in the twin,
   within LAG_S. So do the bystanders. BACK_S after the end, it has what it has in the twin, and its
   service time is learned again within WRONG.
15. So is a job about which a false belief was saved (BELIEF), BACK_S later.
16. A job that is really slower (SLOWER) has the replicas that it needs after LEARNED_S. AFTER_S
   after the end, it has what it has in the twin, and its service time is learned again.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kube_things import FAROPLAN
from soak_faults import (
    BELIEF,
    CAPACITY,
    DATA,
    FAILING,
    JOB,
    ON_TRIAL,
    SLOWER,
    TROUBLED,
    Fault,
)
from soak_time import Process
from soak_world import PLAN, RESTART_S, STARTED, TICK_S, End, World

from faro_lib.protocol import CAPACITY as BY_CAPACITY
from faro_ops.operate.job_states import FINE

LAG_S = 450.0  # the load changes by at most 5 % in this time
AFTER_S = 20 * 60.0  # forecasts use the last 15 minutes
STATE_S = 2 * TICK_S + 5  # until a board shows what is wrong
ORDER_S = 2 * TICK_S + 5  # until an order is in force
BACK_S = 600.0  # after the end of what was false, until the job has what it has in the twin
WRONG = 0.2  # by which a learned service time may differ from the true one
WATCHED_S = 300.0  # how much longer it is watched
LEARNED_S = 720.0  # until it is learned that a service is slower, and the replicas serve
START_S = RESTART_S + 2 * TICK_S  # until a killed controller has had a tick
FAILING_S = 2 * 60 + 3 * TICK_S  # until a board shows that requests fail, or that they do not
CALLS = 400  # of the API server in a minute, of one controller
JOURNAL_BYTES = 20_000  # of a tick
GAP_S = 100.0  # between ticks, for a restart, a hand-over, and a slow query after it
MAX_FALL = 0.2  # the default of --max-scale-down
WINDOW_S = 59.0  # a minute, whose ticks are not all a multiple of their interval apart
HANDOVER_S = 2 * TICK_S + 5  # the first two ticks of a new leader
OFF = 0.05  # by which a count may be wrong


@dataclass
class Twin:
    """Targets of each job in a world without faults, by time since its start."""

    times_s: list[float] = field(default_factory=list)
    targets: dict[str, list[int]] = field(default_factory=dict)

    def add(self, now_s: float, targets: dict[str, int | None]) -> None:
        self.times_s.append(now_s)
        for job, target in targets.items():
            self.targets.setdefault(job, []).append(target or 0)

    def band(self, job: str, now_s: float, lag_s: float) -> tuple[int, int]:
        """The least and the most that the job had, from `lag_s` before now to LAG_S after it."""
        first = max(0, bisect_left(self.times_s, now_s - lag_s) - 1)
        last = bisect_right(self.times_s, now_s + LAG_S)
        values = self.targets[job][first : max(last, first + 1)] or self.targets[job][-1:]
        return min(values), max(values)


@dataclass
class Figures:
    """What a soak has seen.

    broken : one line for each time at which an invariant did not hold: time, fault, what.
    """

    ticks: int = 0
    trials: int = 0  # comparisons of a job on trial with its twin
    checks: int = 0  # of one invariant for one job, or for all, at one time
    hours: float = 0.0
    starts: int = 0  # of controllers
    handovers: int = 0
    faults: Counter = field(default_factory=Counter)
    failures: Counter = field(default_factory=Counter)
    moves: Counter = field(default_factory=Counter)  # changes of targets by hour and job
    broken: list[str] = field(default_factory=list)
    journal_bytes: int = 0
    most_calls: int = 0
    memory_mb: tuple[float, float] = (0.0, 0.0)  # after the first hour, and at the end

    @property
    def broken_by_fault(self) -> Counter:
        return Counter(line.split(" | ")[1] for line in self.broken)


@dataclass
class Trial:
    """A job whose latencies, or what is believed of them, were false, or whose service was slower.

    It is compared with its twin from then on.
    """

    fault: Fault
    began_s: float
    ended_s: float = math.inf
    halfway_s: float = -math.inf  # when controllers were killed during it

    @property
    def back_s(self) -> float:
        """When the job must be as before again."""
        if self.fault.changes == BELIEF:
            return self.began_s + START_S + BACK_S
        return self.ended_s + (AFTER_S if self.fault.changes == SLOWER else BACK_S)

    @property
    def over_s(self) -> float:
        return self.back_s + WATCHED_S


class Invariants:
    """Checks the invariants of one soak.

    twin : None in the twin itself.
    troubled : the jobs that faults befall; the others are bystanders.
    gap_s : longest time between ticks.
    """

    gap_s = GAP_S

    def __init__(self, twin: Twin | None, troubled: tuple[str, ...] = TROUBLED):
        self.twin = twin
        self.troubled = troubled
        self.trials: dict[str, Trial] = {}  # by job
        # Until when a job may differ from its twin for another reason.
        self.unlike_until_s: dict[str, float] = {}
        self.figures = Figures()
        self.fault: Fault | None = None
        self.job = ""
        self.began_s = 0.0
        self.start_s = math.nan
        # Until when jobs may lag behind the twin; until when the capacity forces them.
        self.lags_until_s = -math.inf
        self.forced_until_s = -math.inf
        self.unordered_until_s = -math.inf
        self.has_shrunk = False  # whether a capacity has forced jobs to shrink
        self.unsure_counts_until_s = -math.inf
        self.may_end_until_s = -math.inf  # until when a controller may have lost its lease
        self.told: deque[str] = deque(maxlen=200)  # failures since the fault began
        self.reasons: Counter = Counter()  # of failures since the fault began
        self.led: str | None = None
        self.ticked_s = -math.inf  # when the last tick ended
        self.ticked: set[int] = set()  # processes that have had a tick
        self.targets: dict[str, int | None] = {}
        self.plan_reason: dict[str, str] = {}
        self.held: dict[str, Any] | None = None  # what is asked for while all jobs are frozen
        # (time, number removed, number of all before) of the ticks of the last minute.
        self.falls: deque[tuple[float, int, int]] = deque()
        self.leader_pid = 0
        # Until when a new leader must not change targets, and which there were before it.
        self.taken_over: tuple[float, dict[str, int | None]] = (-math.inf, {})
        self._noted: set[tuple[str, str, float]] = set()

    def note(self, world: World, what: str, trial: Trial | None = None) -> None:
        """Note that an invariant does not hold, once per fault and text without its figures.

        trial : of which it is a violation, if not of the fault of this time.
        """
        fault = trial.fault if trial else self.fault
        began_s = trial.began_s if trial else self.began_s
        name = fault.name if fault else "start"
        since_s = world.clock.now_s - self.start_s
        kind = "".join(letter for letter in what if not letter.isdigit())
        if (name, kind, began_s) in self._noted:
            return
        self._noted.add((name, kind, began_s))
        self.figures.broken.append(f"{since_s:.0f} s | {name} | {what}")

    # --- the course of the faults --------------------------------------------------------------

    def start(self, world: World) -> None:
        self.start_s = world.clock.now_s

    def on_trial(self, world: World, job: str) -> bool:
        """Whether a job is being compared with its twin, so that no other fault may befall it."""
        return job in self.trials and world.clock.now_s < self.trials[job].over_s

    def begin(self, world: World, fault: Fault, job: str) -> None:
        now_s = world.clock.now_s
        if fault.changes in ON_TRIAL:
            self.trials[job] = Trial(fault, now_s)
            if not self._is_like_twin(world, job):
                self.unlike_until_s[job] = math.inf
        elif fault.changes == JOB:
            for one in self.troubled if fault.both else (job,):
                self.trials.pop(one, None)
                self.unlike_until_s[one] = now_s + fault.lasts_s + AFTER_S
        self.fault, self.job, self.began_s = fault, job, now_s
        self.figures.faults[fault.name] += 1
        self.told.clear()
        self.reasons.clear()
        if fault.changes in (DATA, CAPACITY):
            self.lags_until_s = now_s + fault.lasts_s + AFTER_S
        if fault.changes == CAPACITY:
            self.forced_until_s = now_s + fault.lasts_s + AFTER_S
            self.has_shrunk = True
        if fault.ends_orders:
            self.unordered_until_s = now_s + fault.lasts_s + AFTER_S
        if fault.ends_leader:
            self.may_end_until_s = now_s + fault.lasts_s + GAP_S
        if fault.sets_clock:
            self.unsure_counts_until_s = now_s + AFTER_S

    def halfway(self, world: World) -> None:
        """The fault is half over, and something happens to the controllers."""
        if self.job in self.trials:
            self.trials[self.job].halfway_s = world.clock.now_s

    def end(self, world: World) -> None:
        fault = self.fault
        if self.job in self.trials and fault is self.trials[self.job].fault:
            self.trials[self.job].ended_s = world.clock.now_s
        if fault and fault.reported and not {*fault.reported} & {*+self.reasons}:
            self.note(world, f"no failure {' or '.join(fault.reported)!r} was counted")
        ordered = {order.get("job") for order in world.orders()} if world.commands else set()
        for job, command in world.commands:
            if command.ended == "done" and job not in ordered:
                self.note(world, f"`faro set {job}` said that it is set, and it is not")
        world.commands.clear()

    # --- looks ---------------------------------------------------------------------------------

    def look(self, world: World) -> None:
        """Check what the API server shows, every few seconds."""
        now_s = world.clock.now_s
        before, targets = self.targets, world.targets()
        self._count_moves(now_s, targets)
        leader = world.leader
        if leader and leader.name != self.led:
            self.figures.handovers += self.led is not None
            self.led = leader.name
        self._hand_over(world, before, targets)
        self._frozen(world, world.asked())
        self._ticks_go_on(world)
        forced = now_s < self.forced_until_s
        for job, target in targets.items():
            if target is None:
                continue
            self.figures.checks += 2
            if target < world.sizes.minimum:
                self.note(world, f"{job} is asked to run {target}, below its minimum")
            elif target < self._needed(world, job) and not (forced or self._was_idle(world, job)):
                self.note(world, f"{job} is asked to run {target}, fewer than it needs")
        if self.twin is not None:
            for job in world.jobs:
                if job not in (*self.troubled, world.sizes.ordered):
                    self._like_twin(world, job, targets[job])
        self._tried(world, targets)
        self._standing_order(world, targets)
        for end in world.ends:
            if not self._may_end(end):
                since_s = end.at_s - self.start_s
                self.note(world, f"{end.process.name} ended at {since_s:.0f} s: {end.how}")
        world.ends.clear()
        calls = world.calls.get(int(now_s // 60) - 1, 0)
        self.figures.most_calls = max(self.figures.most_calls, calls)
        if calls > CALLS * len(world.pods):
            self.note(world, f"{calls} calls of the API server in a minute")

    def _hand_over(
        self, world: World, before: dict[str, int | None], targets: dict[str, int | None]
    ) -> None:
        """A new leader leaves the bystanders as they are, also while they may lag."""
        leader, now_s = world.leader, world.clock.now_s
        if leader and leader.process.pid != self.leader_pid:
            if self.leader_pid:
                self.taken_over = now_s + HANDOVER_S, before
            self.leader_pid = leader.process.pid
        until_s, earlier = self.taken_over
        if self.twin is None or now_s > until_s or now_s < self.forced_until_s:
            return
        for job, was in earlier.items():
            self.figures.checks += 1
            low, high = self.twin.band(job, now_s - self.start_s, LAG_S)
            right = low == high == was
            if job not in self.troubled and right and targets[job] != was:
                self.note(world, f"the new leader set {job} from {was} to {targets[job]}")

    def _frozen(self, world: World, asked: dict[str, Any]) -> None:
        fault, now_s = self.fault, world.clock.now_s
        begun_s = now_s - self.began_s
        if fault is None or not fault.freezes or not ORDER_S < begun_s < fault.lasts_s:
            self.held = None
            return
        self.figures.checks += 1
        self.held = self.held or asked
        if asked != self.held:
            self.note(world, f"frozen at {self.held}, and {asked} are asked for")

    def _may_end(self, end: End) -> bool:
        if end.at_s > self.may_end_until_s:
            return False
        starting = end.process.pid not in self.ticked
        return "is held by" in end.how or starting

    def _ticks_go_on(self, world: World) -> None:
        self.figures.checks += 1
        fault, now_s = self.fault, world.clock.now_s
        if fault and (fault.ends_leader or fault.stops_ticks):
            self.ticked_s = max(self.ticked_s, min(now_s, self.began_s + fault.lasts_s))
        if now_s - max(self.ticked_s, self.start_s) > self.gap_s:
            self.note(world, f"no tick for {now_s - self.ticked_s:.0f} s")

    def _needed(self, world: World, job: str) -> int:
        """The fewest replicas that a job may be asked to run while the capacity is enough.

        A service that has become slower needs more only once Faro can have learned it.
        """
        if not world.sets_replicas:
            return world.sizes.minimum
        trial = self.trials.get(job)
        stated = trial is not None and world.clock.now_s < trial.began_s + LEARNED_S
        return world.enough(job, LAG_S, as_stated=stated)

    def _was_idle(self, world: World, job: str) -> bool:
        begin_s, end_s = world.idle.get(job, (math.inf, -math.inf))
        return begin_s <= world.clock.now_s <= end_s + AFTER_S

    def _count_moves(self, now_s: float, targets: dict[str, int | None]) -> None:
        hour = int((now_s - self.start_s) // 3600)
        for job, target in targets.items():
            if self.targets.get(job, target) != target:
                self.figures.moves[hour, job] += 1
        self.targets = targets

    def _like_twin(self, world: World, job: str, target: int | None) -> None:
        assert self.twin is not None
        self.figures.checks += 1
        now_s = world.clock.now_s
        lags = now_s < self.lags_until_s
        low, high = self.twin.band(job, now_s - self.start_s, AFTER_S if lags else LAG_S)
        slack = int(lags or self.has_shrunk)
        on_trial = any(
            now_s < one.back_s and one.fault.changes in ON_TRIAL for one in self.trials.values()
        )
        low, high = low - max(slack, int(on_trial)), math.inf if on_trial else high + slack
        if now_s < self.forced_until_s:
            low = world.sizes.minimum
        if target is None or not low <= target <= high:
            self.note(world, f"{job} has {target}, its twin {low} to {high}")

    def _is_like_twin(self, world: World, job: str) -> bool:
        """Whether a job has the target of its twin now, and nothing but a trial may change that."""
        now_s, target = world.clock.now_s, world.targets()[job]
        if self.twin is None or target is None or now_s < self.unlike_until_s.get(job, -math.inf):
            return False
        low, high = self.twin.band(job, now_s - self.start_s, LAG_S)
        return low <= target <= high

    def _tried(self, world: World, targets: dict[str, int | None]) -> None:
        """Compare the jobs on trial with their twins."""
        now_s = world.clock.now_s
        for job, trial in list(self.trials.items()):
            if now_s > trial.over_s:
                del self.trials[job]
                if math.isinf(self.unlike_until_s.get(job, 0.0)):
                    self.unlike_until_s[job] = now_s + AFTER_S
                continue
            self._not_failing(world, job, trial)
            target = targets[job]
            unlike = now_s < self.unlike_until_s.get(job, -math.inf)
            if self.twin is None or unlike or target is None or now_s < self.forced_until_s:
                continue
            lags = now_s < self.lags_until_s
            low, high = self.twin.band(job, now_s - self.start_s, AFTER_S if lags else LAG_S)
            slack = int(lags or self.has_shrunk)
            self.figures.checks += 1
            self.figures.trials += 1
            if now_s > trial.back_s:
                if not low - slack <= target <= high + slack:
                    since_s = now_s - min(trial.ended_s, now_s)
                    text = f"{since_s:.0f} s after its end, {job} has {target}"
                    self.note(world, f"{trial.fault.name}: {text}, its twin {low} to {high}", trial)
            elif trial.fault.changes != BELIEF and target < low - 1 - slack:
                text = f"{job} has {target}, its twin {low} to {high}"
                self.note(world, f"{trial.fault.name}: {text}", trial)

    def _learned_again(self, world: World, factor: np.ndarray | None) -> None:
        """The service times of the jobs on trial are known again."""
        now_s = world.clock.now_s
        for job, trial in self.trials.items():
            # After an outage of the data, there was less to learn from.
            if factor is None or now_s <= max(trial.back_s, self.lags_until_s):
                continue
            self.figures.checks += 1
            learned = float(factor[world.jobs.index(job)])
            if not 1 / (1 + WRONG) <= learned <= 1 + WRONG:
                text = f"the service time of {job} counts as {learned:.2f} times the stated one"
                self.note(world, f"{trial.fault.name}: {text}", trial)

    def _not_failing(self, world: World, job: str, trial: Trial) -> None:
        """The state of a job whose requests have failed goes with the failures."""
        board = world.board()
        if trial.fault.state and board and world.clock.now_s > trial.ended_s + FAILING_S:
            self.figures.checks += 1
            if board.of(job).state == FAILING:
                self.note(world, f"{job} is still {FAILING} on the board", trial)

    def _standing_order(self, world: World, targets: dict[str, int | None]) -> None:
        job = world.sizes.ordered
        if not job or world.clock.now_s < self.start_s + 5 * TICK_S:
            return
        self.figures.checks += 1
        free_until_s = max(self.forced_until_s, self.unordered_until_s)
        if targets[job] != STARTED and world.clock.now_s > free_until_s:
            self.note(world, f"the order of {job} is not in force: it has {targets[job]}")

    # --- ticks ---------------------------------------------------------------------------------

    def step(self, world: World, process: Process, _: Any, step: Any) -> None:
        """Check a tick of a controller."""
        self.ticked.add(process.pid)
        observation = step.observation
        self.plan_reason = dict(zip(world.jobs, step.plan.reason))
        self._learned_again(world, step.plan.service_factor)
        before, after = observation.target, step.target
        self.decided(world, before, after, observation.capacity)
        if step.error is None:
            self.slow_fall(world, np.where(observation.exists, before, after), after)
        self._right_counts(world, observation)
        self.of_fault(world, process.said)

    def decided(self, world: World, before: np.ndarray, after: np.ndarray, capacity: float) -> None:
        """Check a decision.

        before, after : replicas that are asked for, (jobs,).
        capacity : the replicas for which the controller knows room; NaN if it knows none.
        """
        self.figures.ticks += 1
        self.ticked_s = world.clock.now_s
        grew = after > before
        if np.isfinite(capacity) and after.sum() > capacity + 1e-6 and grew.any():
            self.note(world, f"targets {after.tolist()} exceed room for {capacity:g}")

    def of_fault(self, world: World, said: Iterable[str]) -> None:
        """Check what must be seen of the fault while it lasts.

        said : what the controller has logged.
        """
        fault = self.fault
        if fault is None or world.clock.now_s >= self.began_s + fault.lasts_s:
            return
        since_s = world.clock.now_s - self.began_s
        halfway_s = -math.inf if self.job not in self.trials else self.trials[self.job].halfway_s
        since_start_s = world.clock.now_s - max(halfway_s, self.began_s)
        known = fault.state != FAILING or world.knows_failures(self.job)
        if fault.state and known and since_start_s > self._state_s(fault):
            self.figures.checks += 1
            self._note_all(world, self._unseen_state(world, fault))
        if fault.order and since_s > ORDER_S:
            self.figures.checks += 1
            self._note_all(world, self._unseen_order(world, said, fault.order))

    def _note_all(self, world: World, lines: list[str]) -> None:
        for line in lines:
            self.note(world, line)

    def unseen(self, world: World) -> list[str]:
        """What must be seen of the fault, and is not."""
        fault = self.fault
        assert fault
        of_state = self._unseen_state(world, fault) if fault.state else []
        return of_state + (self._unseen_order(world, (), fault.order) if fault.order else [])

    def slow_fall(self, world: World, before: np.ndarray, after: np.ndarray) -> None:
        """At most a share of the replicas is removed within a minute, also by two leaders."""
        self.figures.checks += 1
        now_s = world.clock.now_s
        while self.falls and self.falls[0][0] <= now_s - WINDOW_S:
            self.falls.popleft()
        counts = {one.get("job"): one.get("replicas", 0) for one in world.orders()}
        ordered = np.array([counts.get(job, np.inf) for job in world.jobs]) <= after
        fallen = int(np.maximum(before - after, 0)[~ordered].sum())
        if fallen:
            self.falls.append((now_s, fallen, int(before.sum())))
            removed = sum(number for _, number, _ in self.falls)
            total = self.falls[0][2]
            if removed > max(1, MAX_FALL * total):
                self.note(world, f"{removed} of {total} replicas are removed within a minute")

    def _right_counts(self, world: World, observation: Any) -> None:
        now_s = world.clock.now_s
        counts = observation.arrivals_per_min
        if not counts.shape[1] or now_s < max(self.unsure_counts_until_s, self.start_s + 300):
            return
        # The observation's minute ended so long before its time.
        ago_s = observation.now_s - 60 * observation.minute
        end_s = now_s - ago_s
        for n, job in enumerate(world.jobs):
            count = counts[n, -1]
            if not np.isfinite(count) or job in world.values:
                continue
            self.figures.checks += 1
            near = [world.count(job, end_s - 60 + by, end_s + by) for by in (-6, -3, 0, 3)]
            low, high = min(near), max(near)
            slack = OFF * high + 5
            if not low - slack <= count <= high + slack:
                self.note(world, f"{job} had {low} to {high} requests, {count:g} were counted")

    @staticmethod
    def _state_s(fault: Fault) -> float:
        """Seconds until the board must show the state; controllers may have to start first."""
        if fault.state == FAILING:
            return FAILING_S
        return GAP_S if fault.name.startswith("controllers start") else STATE_S

    def _unseen_state(self, world: World, fault: Fault) -> list[str]:
        board = world.board()
        if board is None:
            return []
        state = board.of(self.job)
        if state.state != fault.state:
            return [f"{self.job} is {state.state}, not {fault.state} on the board"]
        if not state.reason or "\n" in state.reason:
            return [f"the state of {self.job} has no reason of one line"]
        return []

    def _unseen_order(self, world: World, said: Iterable[str], order: dict) -> list[str]:
        job = order.get("job", self.job)
        wanted = order.get("replicas")
        bad = "load" in order or "until" in order
        if job in world.jobs and not bad and world.targets()[job] == wanted:
            return []
        if self._is_named(world, said, job):
            return []
        return [f"the order of {job} is neither in force nor named as not"]

    def _is_named(self, world: World, said: Iterable[str], job: str) -> bool:
        """Whether anything that an operator sees says why the order of the job is not in force."""
        board = world.board()
        if board and job in world.jobs and board.of(job).state != FINE:
            return True
        if self.plan_reason.get(job) == BY_CAPACITY:
            return True
        plan = world.find(FAROPLAN, PLAN) or {}
        status = plan.get("status") or {}
        if any(one["job"] == job for one in status.get("ordersNotInForce", [])):
            return True
        shown = json.dumps([status.get("conditions"), status.get("jobs")])
        lines = [*self.told, *(line for line in said if "order" in line)]
        words = (f"'{job}'", "spec.overrides")
        if any(word in line for line in lines for word in words):
            return True
        return f"'{job}'" in shown or "not in force" in shown

    def failure(self, world: World, _: Process, reason: str, message: str) -> None:
        self.figures.failures[reason] += 1
        self.reasons[reason] += 1
        self.told.append(message)
        if len(message) > 1000 or "\n" in message:
            self.note(world, f"a message of {len(message)} characters: {message[:100]!r}")
