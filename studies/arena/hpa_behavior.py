"""A plugin: the HPA of autoscaling/v2 with a `behavior`: scaling policies and stabilization windows
in both directions.

A scaling policy limits the change within the last `period_s` seconds; selectPolicy Max applies the
policy that allows the largest change, Min the smallest. Scaling down goes to the highest
recommendation of the scale-down window, scaling up to the lowest of the scale-up window. Source:
kubernetes.io, "Horizontal Pod Autoscaling", section "Configurable scaling behavior".

The registered policy uses examples of that page: at most 10 % of the pods removed per minute, a
scale-down window of 60 s.
"""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies import HPA, Observation, Plan, register
from faro_lib.policies.baselines import ReactiveState, Window
from faro_lib.policies.platforms import appended, reactive_plan
from faro_lib.workload.jobs import TOLERANCE


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Limit the change within `period_s` seconds to `value` pods (`kind` "Pods") or per cent of
    pods ("Percent").
    """

    kind: str
    value: float
    period_s: float

    def limit(self, now: np.ndarray, changes: Window, now_s: float, sign: int) -> np.ndarray:
        """The most (`sign` 1) or fewest (`sign` -1) replicas (jobs,) allowed now, given the recent
        `changes`.
        """
        recent = [
            np.maximum(sign * change, 0) for at_s, change in changes if at_s > now_s - self.period_s
        ]
        start = now - sign * np.sum(recent, axis=0, dtype=np.int64)
        if self.kind == "Pods":
            return start + sign * int(self.value)
        wanted = start * (1 + sign * self.value / 100)
        if sign > 0:
            return np.ceil(wanted - TOLERANCE).astype(np.int64)
        return np.floor(wanted + TOLERANCE).astype(np.int64)


DEFAULT_UP = (ScalingPolicy("Percent", 100, 15), ScalingPolicy("Pods", 4, 15))
DEFAULT_DOWN = (ScalingPolicy("Percent", 100, 15),)


@dataclass(frozen=True, slots=True)
class BehaviorState(ReactiveState):
    """`window` has recent recommendations."""

    changes: Window = ()  # (time of a tick in s, change of the target that it decided)
    target: np.ndarray | None = None  # at the previous tick


@dataclass(frozen=True, slots=True)
class BehaviorHPA(HPA):
    """An empty tuple of policies means selectPolicy Disabled."""

    up: tuple[ScalingPolicy, ...] = DEFAULT_UP
    down: tuple[ScalingPolicy, ...] = DEFAULT_DOWN
    select_up: str = "Max"
    select_down: str = "Max"
    up_stabilisation_s: float = 0.0
    name: str = "HPA-behavior"

    def start(self, jobs) -> BehaviorState:
        state = HPA.start(self, jobs)
        return BehaviorState(state.jobs, state.counter_s)

    def decide(  # type: ignore[override]
        self, state: BehaviorState, observation: Observation
    ) -> tuple[BehaviorState, Plan]:
        now, now_s = observation.target, observation.now_s
        desired, known = self.recommend(state, observation)
        window = appended(
            state.window or ((now_s, now),),
            now_s,
            np.where(known, desired, now),
            max(self.stabilisation_s, self.up_stabilisation_s),
        )
        # What the previous tick changed is known only now: other rules may have changed its plan.
        before = now if state.target is None else state.target
        longest = max(policy.period_s for policy in (*self.up, *self.down, DEFAULT_UP[0]))
        changes = appended(state.changes, state.last_s, now - before, longest)

        def over(length_s):  # this recommendation and those of the last `length_s` seconds
            return [desired, *(values for at_s, values in window if at_s > now_s - length_s)]

        lowest = np.min(over(self.up_stabilisation_s), axis=0)
        highest = np.max(over(self.stabilisation_s), axis=0)
        stable = np.where(desired > now, np.maximum(now, lowest), np.minimum(now, highest))
        most = self._limit(now, changes, now_s, 1)
        fewest = self._limit(now, changes, now_s, -1)
        stable = np.clip(stable, np.minimum(fewest, now), np.maximum(most, now))
        target = state.within_bounds(np.where(known, stable, now))
        state = replace(state, window=window, changes=changes, target=now, last_s=now_s)
        return state, reactive_plan(target, observation)

    def _limit(self, now: np.ndarray, changes: Window, now_s: float, sign: int) -> np.ndarray:
        """The most (`sign` 1) or fewest (`sign` -1) replicas (jobs,) by all policies together."""
        policies, select = (self.up, self.select_up) if sign > 0 else (self.down, self.select_down)
        allowed = [policy.limit(now, changes, now_s, sign) for policy in policies] or [now]
        # selectPolicy Max takes the largest change: the most replicas up, the fewest down.
        largest = np.max if (select == "Max") == (sign > 0) else np.min
        return largest(allowed, axis=0)


SLOW_DOWN = (ScalingPolicy("Percent", 10, 60),)
register("HPA-behavior")(lambda context: BehaviorHPA(down=SLOW_DOWN, stabilisation_s=60.0))
