"""The long-term and the reactive loop of the forecasting policies (EuroSys'25, section 4)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib import protocol
from faro_lib.forecast import Forecaster
from faro_lib.policies.learning import Learned
from faro_lib.policies.pooled import without_held_pools
from faro_lib.protocol import MISSING, Observation, Plan, hold
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import DAY_MINUTES, TOLERANCE
from faro_lib.workload.shares import at_least_one_each, with_bounds

# What a plan says about a job's coming load.
FORECAST = ("forecast_rps", "predicted_tail_latency_s", "next_minute_deciles_rps")
MAX_MISSED = 240  # minutes to catch up; after a longer gap, the forecaster discards its old counts


@dataclass(frozen=True, slots=True)
class LoopState:
    """The state of the long-term and the reactive loop; arrays have shape (jobs,)."""

    jobs: tuple[Job, ...]
    forecaster: Forecaster  # updated with every complete minute
    # Seconds above the SLO since the last long-term decision or reactive scale-up.
    counter_s: np.ndarray
    # Sum of 1 - utility over the day's minutes so far. A minute without a known latency adds 0.
    lost: np.ndarray
    minute: int = 0  # complete minutes so far
    since_minute: int = 0  # `minute` at the last long-term decision
    last_s: float = 0.0  # time of the last tick
    learned: Learned | None = None  # of service times; None if the policy does not learn


@dataclass(frozen=True, slots=True)
class TwoLoops:
    """Plan with a forecast at long intervals, and react to latency in between.

    A subclass defines `plan`. A job of which no minute was ever counted keeps its replicas.
    """

    forecaster: Forecaster
    first_s: float = 60.0  # time of the first long-term decision
    # Later decisions are made when now_s - phase_s is a multiple of interval_s.
    interval_s: float = 300.0
    phase_s: float = 0.0
    reactive: bool = True  # whether the reactive loop runs
    tick_s: float = 10.0
    before: np.ndarray | None = None  # (jobs, minutes) requests in the minutes before the start

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return at_least_one_each(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> LoopState:
        forecaster = self.forecaster.start(self.forecaster.minute_of_day)
        if self.before is not None:
            for counts in self.before.T:
                forecaster = forecaster.update(counts)
        return LoopState(jobs, forecaster, counter_s=np.zeros(len(jobs)), lost=np.zeros(len(jobs)))

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        """The long-term plan."""
        raise NotImplementedError

    def decide(self, state: LoopState, observation: Observation) -> tuple[LoopState, Plan]:
        state = fold_minutes(state, observation)
        if self.is_long_term(observation.now_s, state.last_s):
            after, plan = long_term(self.plan, state, observation, observation.target)
        elif self.reactive:
            after, plan = react_up(state, observation, self.tick_s)
        else:
            after, plan = replace(state, last_s=observation.now_s), hold(observation)
        return after, keeping_unknown(plan, state, observation)

    def is_long_term(self, now_s: float, last_s: float = 0.0) -> bool:
        """Whether a long-term plan has become due after the last tick, at `last_s`, by `now_s`."""
        if now_s <= self.first_s:  # a live run begins later than that
            return now_s == self.first_s
        last_s = last_s or now_s - self.tick_s  # 0 means no tick yet, or an unknown time
        due = (np.array([now_s, last_s]) - self.phase_s) / self.interval_s + TOLERANCE
        intervals_now, intervals_then = np.floor(due)
        return bool(intervals_now > intervals_then)


def unknown_jobs(state: LoopState, observation: Observation) -> np.ndarray:
    """Whether each job exists, but no minute of it was ever counted, bool (jobs,)."""
    return observation.exists & ~state.forecaster.known()


def long_term(
    plan: Callable[[LoopState, Observation], Plan],
    state: LoopState,
    observation: Observation,
    current: np.ndarray,
) -> tuple[LoopState, Plan]:
    """(new state, plan) of a long-term decision, which `plan` makes around the unknown jobs.

    The cores of their `current` replicas (jobs,) stay reserved for them. If all jobs are unknown,
    nothing changes, and the decision is made as soon as a job is known.
    """
    if not state.forecaster.known().any():
        return state, hold(observation)
    after, unknown = after_planning(state, observation), unknown_jobs(state, observation)
    if not unknown.any():
        return after, plan(state, observation)
    arrays = arrays_of(state.jobs)
    least = np.where(unknown, current, arrays.min_replicas)
    most = np.where(unknown, current, arrays.max_replicas)
    jobs = with_bounds(state.jobs, least.tolist(), most.tolist())
    # Together with the minimum of the other jobs, they may exceed a reduced capacity.
    capacity = max(observation.capacity, float(least @ arrays.cores))
    return after, plan(replace(state, jobs=jobs), replace(observation, capacity=capacity))


def keeping_unknown(plan: Plan, state: LoopState, observation: Observation) -> Plan:
    """The plan in which unknown jobs keep their replicas, with the reason MISSING.

    What a forecast says about them is a guess, so it becomes NaN. Before the first complete minute,
    no count can be known yet, and the plan stays as it is.
    """
    unknown = unknown_jobs(state, observation)
    if not unknown.any() or not observation.arrivals_per_min.shape[1]:
        return plan
    guesses = {name: getattr(plan, name) for name in FORECAST}
    nothing: dict[str, Any] = {
        name: np.where(unknown.reshape(-1, *[1] * (guess.ndim - 1)), np.nan, guess)
        for name, guess in guesses.items()
        if guess is not None
    }
    kept = replace(
        plan,
        target=np.where(unknown, observation.target, plan.target),
        drop=np.where(unknown, observation.drop, plan.drop),
        reason=tuple(MISSING if is_so else why for is_so, why in zip(unknown, plan.reason)),
        **nothing,
    )
    return without_held_pools(state.jobs, kept, unknown)


def after_planning(state: LoopState, observation: Observation) -> LoopState:
    """The state after a long-term decision on this observation."""
    return replace(
        state,
        counter_s=np.zeros_like(state.counter_s),
        last_s=observation.now_s,
        since_minute=observation.minute,
    )


def fold_minutes(state: LoopState, observation: Observation) -> LoopState:
    """The state after the minutes since `state.minute`. Counts not in `observation` become NaN."""
    if observation.minute == state.minute:
        return state
    forecaster, history = state.forecaster, observation.arrivals_per_min
    missed = observation.minute - state.minute
    if missed > MAX_MISSED:
        forecaster = forecaster.skip(missed - MAX_MISSED)
        missed = MAX_MISSED
    unknown = np.full(len(history), np.nan)
    for age in range(missed, 0, -1):  # age 1 is the newest minute
        counts = history[:, -age] if age <= history.shape[1] else unknown
        forecaster = forecaster.update(counts)
    latency_s = np.where(np.isnan(observation.tail_latency_s), 0.0, observation.tail_latency_s)
    utility = relaxed_utility(latency_s, arrays_of(state.jobs).slo_s)
    same_day = (observation.minute - 1) // DAY_MINUTES == (state.minute - 1) // DAY_MINUTES
    lost_before = state.lost if same_day or not state.minute else 0.0  # minute 0: the start
    lost = lost_before + 1 - utility
    return replace(state, forecaster=forecaster, lost=lost, minute=observation.minute)


def react_up(state: LoopState, observation: Observation, tick_s: float) -> tuple[LoopState, Plan]:
    """(new state, plan). Jobs with a mean latency above the SLO for 30 s in total get a replica.

    These seconds are counted from the last long-term decision or added replica. Time in which the
    job's replicas start or stop does not count. A tick counts as at most `tick_s` seconds, even
    after a pause of the loop.
    """
    jobs = arrays_of(state.jobs)
    above = (observation.mean_latency_s > jobs.slo_s) & ~observation.changing
    elapsed_s = min(observation.now_s - state.last_s, tick_s)
    counter_s = state.counter_s + elapsed_s * above
    up = counter_s >= protocol.REACT_UP_AFTER_S
    most = np.maximum(jobs.max_replicas, observation.target)
    target = np.minimum(observation.target + up, most)
    reason = tuple(protocol.REACTIVE_UP if grows else protocol.HOLD for grows in up)
    state = replace(state, counter_s=np.where(up, 0.0, counter_s), last_s=observation.now_s)
    return state, Plan(target, observation.drop, reason)
