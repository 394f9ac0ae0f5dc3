"""A plugin: Knative's Pod Autoscaler (KPA) on concurrency, with panic mode and its defaults.

desired = ceil(mean concurrency of the stable window / target), with a target of 70 % of
containerConcurrency. If the panic window (6 s) wants at least twice the ready pods, the revision
panics: it follows the larger count of both windows and does not scale down until there has been no
reason to panic for 60 s. Sources: knative.dev, "Additional autoscaling configuration for Knative
Pod Autoscaler" (stable-window 60s, panic-window-percentage 10, panic-threshold-percentage 200,
max-scale-up-rate 1000, max-scale-down-rate 2), "Configuring concurrency" (target utilization 70 %),
and config-autoscaler (a decision every 2 s).

A replica serves one request at a time, so containerConcurrency is 1. Services are not scaled to
zero.
"""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies import Observation, Plan, register
from faro_lib.policies.baselines import Reactive, ReactiveState
from faro_lib.policies.platforms import appended, mean_known, reactive_plan
from faro_lib.workload.jobs import TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class PanicState(ReactiveState):
    """`window` has recent concurrencies."""

    panicked_s: np.ndarray  # (jobs,) time of the last reason to panic; -inf before the first
    most: np.ndarray  # (jobs,) largest number of pods since the panic began


@dataclass(frozen=True, slots=True)
class KPA(Reactive):
    concurrency: float = 1.0  # containerConcurrency
    utilisation: float = 0.7
    stable_s: float = 60.0
    panic_s: float = 6.0
    threshold: float = 2.0
    up_rate: float = 1000.0
    down_rate: float = 2.0
    name: str = "KPA"
    tick_s: float = 2.0

    def start(self, jobs) -> PanicState:
        state = Reactive.start(self, jobs)
        zeros = np.zeros(len(jobs), np.int64)
        return PanicState(
            jobs=state.jobs, counter_s=state.counter_s, panicked_s=zeros - np.inf, most=zeros
        )

    def decide(self, state: PanicState, observation: Observation) -> tuple[PanicState, Plan]:
        now, now_s = observation.target, observation.now_s
        ready = np.maximum(observation.running, 1)
        window = appended(state.window, now_s, observation.ongoing, self.stable_s)
        low = np.minimum(np.floor(ready / self.down_rate), ready - 1)
        high = np.maximum(np.ceil(ready * self.up_rate), ready + 1)

        def desired(length_s):
            recent = [ongoing for at_s, ongoing in window if at_s > now_s - length_s]
            mean, known = mean_known(recent)
            pods = np.ceil(mean / (self.concurrency * self.utilisation) - TOLERANCE)
            return np.where(known, pods, now)

        stable, brief = desired(self.stable_s), desired(self.panic_s)
        panicked_s = np.where(brief / ready >= self.threshold, now_s, state.panicked_s)
        panics = panicked_s > now_s - self.stable_s
        stable, brief = np.clip(stable, low, high), np.clip(brief, low, high)
        largest = np.maximum.reduce([stable, brief, state.most, ready])
        most = np.where(panics, largest, 0).astype(np.int64)
        target = state.within_bounds(np.where(panics, most, stable).astype(np.int64))
        state = replace(state, window=window, panicked_s=panicked_s, most=most)
        return state, reactive_plan(target, observation)


register("KPA")(lambda context: KPA())
