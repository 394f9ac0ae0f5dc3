"""A plugin: Ray Serve's autoscaler as in Ray 2.60, with all its defaults.

desired = ceil(m / target_ongoing_requests), where m is the mean of the ongoing requests over
look_back_period_s. A change is applied once an unbroken series of decisions in its direction has
lasted upscale_delay_s or downscale_delay_s. Sources: docs.ray.io, "Advanced Ray Serve Autoscaling",
and AutoscalingConfig of Ray 2.60 (target_ongoing_requests 2, look_back_period_s 30, upscale_delay_s
30, downscale_delay_s 600, both scaling factors 1, metrics every 10 s). The library's policy
RayServe starts its counter at one tick instead of 0, and therefore acts one tick earlier.
"""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies import Observation, Plan, RayServe, register
from faro_lib.policies.baselines import ReactiveState
from faro_lib.policies.platforms import reactive_plan
from faro_lib.workload.jobs import TOLERANCE


@dataclass(frozen=True, slots=True)
class TimedRayServe(RayServe):
    """`counter_s` is the age in s of a series of decisions, negative if they scale down."""

    name: str = "RayServe-2.60"

    def decide(self, state: ReactiveState, observation: Observation) -> tuple[ReactiveState, Plan]:
        now = observation.target
        window, desired = self.recommend(state, observation)
        direction = np.sign(desired - now)
        goes_on = direction == np.sign(state.counter_s)
        older = state.counter_s + direction * (observation.now_s - state.last_s)
        # A new series has age 0, but needs a sign.
        age_s = np.where(goes_on, older, direction * TOLERANCE)
        act = (age_s >= self.up_after_s) | (age_s <= -self.down_after_s)
        counter_s = np.where(act, 0.0, age_s)
        state = replace(state, window=window, counter_s=counter_s, last_s=observation.now_s)
        return state, reactive_plan(np.where(act, desired, now), observation)


register("RayServe-2.60")(lambda context: TimedRayServe())
