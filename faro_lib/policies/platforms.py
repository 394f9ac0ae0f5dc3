"""Autoscalers of other systems: Kubernetes (HPA) and Ray Serve, with default or tuned targets."""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies.baselines import Reactive, ReactiveState, Window
from faro_lib.policies.factories import register, register_family
from faro_lib.protocol import REACTIVE_DOWN, REACTIVE_UP, Observation, Plan, reasons
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE


def mean_known(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each job's values that are not NaN, 0 if all are, and whether it has such a value."""
    samples = np.array(values, float)
    known = ~np.isnan(samples)
    total = np.where(known, samples, 0).sum(axis=0)
    return total / np.maximum(known.sum(axis=0), 1), known.any(axis=0)


def appended(window: Window, now_s: float, values: np.ndarray, length_s: float) -> Window:
    """The window with one more entry, without entries that are `length_s` seconds old or older."""
    return (*(entry for entry in window if entry[0] > now_s - length_s), (now_s, values))


def reactive_plan(target: np.ndarray, observation: Observation) -> Plan:
    return Plan(
        target,
        np.zeros(len(target)),
        reasons(target, observation.target, REACTIVE_UP, REACTIVE_DOWN),
    )


@dataclass(frozen=True, slots=True)
class HPA(Reactive):
    """Kubernetes' Horizontal Pod Autoscaler on CPU utilisation, with autoscaling/v2's defaults.

    desired = ceil(ready pods x utilisation / target). Nothing changes without a metric, or if
    utilisation / target is between 0.9 and 1.1. Starting pods count as idle when the rule would
    scale up. The HPA adds at most 4 pods or 100 % per tick (15 s), whichever is more. It scales
    down only to the highest recommendation of the last 5 min.
    Sources: kubernetes.io, "Horizontal Pod Autoscaling", "Algorithm details" and "Default
    behavior"; flags of kube-controller-manager: --horizontal-pod-autoscaler-sync-period (15 s),
    -tolerance, -downscale-stabilization.

    Utilisation is min(1, rate x busy time / running): a pod's CPU is busy while it serves. The
    rate is that of the last complete minute, as a metrics pipeline delivers it. The busy time is
    that of the observation, or else `Job.busy_s`: the service time of a serial replica, 1 /
    capacity of a batched or concurrent one.
    """

    utilisation: float = 0.8  # target; Kubernetes' default for an HPA that names no metric
    tolerance: float = 0.1
    stabilisation_s: float = 300.0
    name: str = "HPA"
    tick_s: float = 15.0

    def decide(self, state: ReactiveState, observation: Observation) -> tuple[ReactiveState, Plan]:
        now, now_s = observation.target, observation.now_s
        desired, known = self.recommend(state, observation)
        # A job without a metric is stored as 0, which does not affect the maximum.
        recommended = np.where(known, desired, 0)
        window = appended(state.window or ((now_s, now),), now_s, recommended, self.stabilisation_s)
        highest = np.max([values for _, values in window], axis=0)
        max_up = np.maximum(now + 4, 2 * now)  # 4 pods or 100 % more
        target = np.where(desired > now, np.minimum(desired, max_up), np.minimum(now, highest))
        target = state.within_bounds(np.where(known, target, now))
        return replace(state, window=window), reactive_plan(target, observation)

    def recommend(
        self, state: ReactiveState, observation: Observation
    ) -> tuple[np.ndarray, np.ndarray]:
        """(recommended replicas, whether a metric is known), both (jobs,).

        A job without a metric keeps its replicas. As in Kubernetes, the jobs' bounds limit the
        applied replica count, but not the recommendation.
        """
        history, now = observation.arrivals_per_min, observation.target
        if not history.shape[1]:
            return now, np.zeros(len(now), bool)
        ready, starting = observation.running, np.maximum(observation.starting, 0)
        busy_s = state.jobs.busy_s
        if observation.busy_s is not None:
            busy_s = np.where(np.isnan(observation.busy_s), busy_s, observation.busy_s)
        busy = history[:, -1] / MINUTE_S * busy_s
        known = np.isfinite(busy) & (ready > 0)
        utilisation = np.minimum(1.0, busy / np.maximum(ready, 1))
        ratio = np.where(known, utilisation, self.utilisation) / self.utilisation
        pods = np.where(ratio > 1, ready + starting, ready)
        diluted = ratio * ready / np.maximum(pods, 1)
        desired = np.ceil(diluted * pods - TOLERANCE).astype(np.int64)
        reversed_ = (ratio > 1) & ((diluted < 1) | (desired < now))
        unchanged = ~known | (np.abs(diluted - 1) <= self.tolerance) | reversed_
        return np.where(unchanged, now, desired), known


@dataclass(frozen=True, slots=True)
class RayServe(Reactive):
    """Ray Serve's request-based autoscaling as in Ray 2.60, with the defaults of AutoscalingConfig.

    desired = ceil(ongoing requests / target per replica). The ongoing requests (waiting or in
    service) are averaged over look_back_period_s. A change is applied once an unbroken series of
    decisions in its direction has lasted upscale_delay_s or downscale_delay_s. The state's
    `counter_s` is the age of that series in seconds, negative if it scales down.
    Source: docs.ray.io, "Advanced Ray Serve Autoscaling", and AutoscalingConfig
    (target_ongoing_requests 2, look_back_period_s 30, upscale_delay_s 30, downscale_delay_s 600,
    both scaling factors 1, metrics every 10 s).
    """

    ongoing: float = 2.0  # target_ongoing_requests; a number, or one per job, (jobs,)
    look_back_s: float = 30.0
    up_after_s: float = 30.0
    down_after_s: float = 600.0
    name: str = "RayServe-2.60"

    def recommend(
        self, state: ReactiveState, observation: Observation
    ) -> tuple[Window, np.ndarray]:
        """The window of ongoing requests, and the desired replicas (jobs,) within the bounds."""
        window = appended(state.window, observation.now_s, observation.ongoing, self.look_back_s)
        mean, known = mean_known([ongoing for _, ongoing in window])
        desired = np.where(known, np.ceil(mean / self.ongoing - TOLERANCE), observation.target)
        return window, state.within_bounds(desired.astype(np.int64))

    def decide(self, state: ReactiveState, observation: Observation) -> tuple[ReactiveState, Plan]:
        now = observation.target
        window, desired = self.recommend(state, observation)
        direction = np.sign(desired - now)
        goes_on = direction == np.sign(state.counter_s)
        older = state.counter_s + direction * (observation.now_s - state.last_s)
        begun = direction * TOLERANCE  # a new series has age 0, but needs a sign
        age_s = np.where(goes_on, older, begun)
        act = (age_s >= self.up_after_s) | (age_s <= -self.down_after_s)
        state = replace(
            state,
            window=window,
            counter_s=np.where(act, 0.0, age_s),
            last_s=observation.now_s,
        )
        return state, reactive_plan(np.where(act, desired, now), observation)


register("HPA")(lambda context: HPA())
# HPA-60 has a target utilisation of 60 %.
PERCENTAGES = {str(percent): percent / 100 for percent in range(1, 101)}
register_family(
    "HPA-",
    PERCENTAGES.__contains__,
    lambda p: lambda _: HPA(utilisation=PERCENTAGES[p], name=f"HPA-{p}"),
)
# A target of 1 loses less utility than 2 (Ray's default) or 4 (docs/tuning.md).
TUNED_ONGOING = 1.0
register("RayServe")(lambda context: RayServe(ongoing=TUNED_ONGOING, name="RayServe"))
register("RayServe-2.60")(lambda context: RayServe())
