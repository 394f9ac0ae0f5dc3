"""What the platforms do by themselves: the Kubernetes HPA's rule and Ray Serve's own, each with its default parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies.protocol import HOLD, REACTIVE_DOWN, REACTIVE_UP, Plan, at_least_one_each
from faro_lib.policies.registry import register
from faro_lib.workload import jobs_array
from faro_lib.workload.jobs import MINUTE_S


@dataclass(frozen=True, slots=True)
class PlatformState:
    service_time_s: np.ndarray
    fewest: np.ndarray
    most: np.ndarray
    window: tuple[tuple[float, np.ndarray], ...] = ()  # (instant, what was seen or recommended), oldest first
    counter_s: np.ndarray | None = None  # seconds in a row that more (+) or fewer (-) replicas were wanted

    @classmethod
    def of(cls, jobs, **fields) -> PlatformState:
        return cls(
            jobs_array(jobs, "service_time_s"),
            np.maximum(1, jobs_array(jobs, "min_replicas")),
            jobs_array(jobs, "max_replicas"),
            **fields,
        )


def remember(window, now_s: float, seen: np.ndarray, back_s: float):
    """The window with one more entry, without those that are `back_s` old."""
    return (*((at_s, old) for at_s, old in window if at_s > now_s - back_s), (now_s, seen))


def _plan(target, observation) -> Plan:
    reason = (
        REACTIVE_UP if wanted > now else REACTIVE_DOWN if wanted < now else HOLD
        for wanted, now in zip(target, observation.target)
    )
    return Plan(target, np.zeros(len(target)), tuple(reason))


@dataclass(frozen=True, slots=True)
class HPA:
    """The Kubernetes Horizontal Pod Autoscaler on CPU utilisation, with the defaults of autoscaling/v2.

    desired = ceil(ready pods x utilisation / target utilisation), nothing within a tolerance of 10 %; pods that start
    count as idle when they would be reasons to grow; at most max(4 pods, 100 %) more in 15 s; down only to the highest
    recommendation of the last 5 minutes; no metric, no action. Sources: kubernetes.io, "Horizontal Pod Autoscaling",
    sections "Algorithm details" and "Default behavior"; kube-controller-manager's flags
    --horizontal-pod-autoscaler-sync-period (15 s), -tolerance (0.1), -downscale-stabilization (5 min).

    A pod's CPU is busy while it serves, so its utilisation is min(1, rate x service time / running); the rate is that of
    the last complete minute, as metrics pipelines deliver it, the service time the planner's.

    Attributes
    ----------
    utilisation : the target, 80 % (what Kubernetes uses where an HPA names no metric).
    """

    utilisation: float = 0.8
    tolerance: float = 0.1
    up_pods: int = 4
    up_factor: float = 2.0
    stabilisation_s: float = 300.0
    name: str = "HPA"
    tick_s: float = 15.0

    def initial(self, jobs, capacity):
        return at_least_one_each(jobs, capacity)

    def start(self, jobs):
        return PlatformState.of(jobs)

    def decide(self, state, observation):
        now = observation.target
        desired, known = self.recommend(state, observation)
        # The controller's first recommendation is what it finds; what was not measured recommends nothing.
        window = remember(
            state.window or ((observation.now_s, now),),
            observation.now_s,
            np.where(known, desired, 0),
            self.stabilisation_s,
        )
        highest = np.max([recommended for _, recommended in window], axis=0)
        most_up = np.maximum(now + self.up_pods, np.ceil(now * self.up_factor)).astype(np.int64)
        target = np.where(desired > now, np.minimum(desired, most_up), np.minimum(now, highest))
        target = np.clip(np.where(known, target, now), state.fewest, state.most)
        return replace(state, window=window), _plan(target, observation)

    def recommend(self, state, observation) -> tuple[np.ndarray, np.ndarray]:
        """Replicas by the metric alone, and where there is a metric; the present target where it says nothing."""
        history, now = observation.arrivals_per_min, observation.target
        if not history.shape[1]:
            return now, np.zeros(len(now), bool)
        ready, starting = observation.running, np.maximum(observation.starting, 0)
        busy = history[:, -1] / MINUTE_S * state.service_time_s
        known = np.isfinite(busy) & (ready > 0)
        ratio = np.where(known, np.minimum(1.0, busy / np.maximum(ready, 1)), self.utilisation) / self.utilisation
        # Pods without a metric yet are taken as idle where the others ask for more: growth is not asked for twice.
        pods = np.where(ratio > 1, ready + starting, ready)
        diluted = ratio * ready / np.maximum(pods, 1)
        desired = np.ceil(diluted * pods - 1e-9).astype(np.int64)
        turned = (ratio > 1) & ((diluted < 1) | (desired < now))
        quiet = ~known | (np.abs(diluted - 1) <= self.tolerance) | turned
        return np.clip(np.where(quiet, now, desired), state.fewest, state.most), known


@dataclass(frozen=True, slots=True)
class RayServe:
    """Ray Serve's request-based autoscaling with the defaults of its AutoscalingConfig.

    desired = ceil(running x (ongoing requests / (target x running))): the smoothing factor is 1. Ongoing requests wait or
    are in service, averaged over the last 30 s. A change is made after 30 s in which more, or 600 s in which fewer,
    replicas were wanted throughout. Source: docs.ray.io, "Advanced Ray Serve Autoscaling" and
    ray.serve.config.AutoscalingConfig (target_ongoing_requests 2, look_back_period_s 30, metrics_interval_s 10,
    upscale_delay_s 30, downscale_delay_s 600). Bounds are the jobs' own, as with num_replicas="auto".
    """

    ongoing: float = 2.0
    look_back_s: float = 30.0
    up_after_s: float = 30.0
    down_after_s: float = 600.0
    name: str = "RayServe"
    tick_s: float = 10.0

    def initial(self, jobs, capacity):
        return at_least_one_each(jobs, capacity)

    def start(self, jobs):
        return PlatformState.of(jobs, counter_s=np.zeros(len(jobs)))

    def decide(self, state, observation):
        window = remember(state.window, observation.now_s, observation.ongoing, self.look_back_s)
        samples = np.array([queue for _, queue in window], float)
        seen = ~np.isnan(samples)
        mean = np.where(seen, samples, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        desired = np.where(seen.any(axis=0), np.ceil(mean / self.ongoing - 1e-9), observation.target).astype(np.int64)
        desired = np.clip(desired, state.fewest, state.most)

        more, fewer = desired > observation.target, desired < observation.target
        counter_s = np.where(more, np.maximum(state.counter_s, 0) + self.tick_s, 0.0)
        counter_s = np.where(fewer, np.minimum(state.counter_s, 0) - self.tick_s, counter_s)
        act = (counter_s >= self.up_after_s) | (counter_s <= -self.down_after_s)
        target = np.where(act, desired, observation.target)
        state = replace(state, window=window, counter_s=np.where(act, 0.0, counter_s))
        return state, _plan(target, observation)


register("HPA")(lambda context: HPA())
register("RayServe")(lambda context: RayServe())
