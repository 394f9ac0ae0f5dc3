"""Our readings of the HPA, KEDA, Knative and Ray Serve, with the rules that only their code has.

In each tick they ask for the same replicas as the own code (`studies/arena/own_code.py`). So the
rules here are all that our readings of the documentation lack. Sources: Kubernetes 1.37.2,
pkg/controller/podautoscaler; Knative 0.42.2, pkg/autoscaler/scaling; Ray 2.60.0,
serve/autoscaling_policy.py and serve/_private.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies import HPA, Observation, Plan, Policy
from faro_lib.policies.baselines import ReactiveState, Window
from faro_lib.policies.platforms import RayServe, appended, reactive_plan
from faro_lib.workload.jobs import MINUTE_S
from studies.arena.hpa_behavior import DEFAULT_UP, SLOW_DOWN, ScalingPolicy
from studies.arena.keda import with_ceilings
from studies.arena.knative import KPA, PanicState

INITIALIZATION_S = 300.0  # --horizontal-pod-autoscaler-cpu-initialization-period
MILLI = 1000


@dataclass(frozen=True, slots=True)
class PodState(ReactiveState):
    """The pods that the controller has seen, and the changes that it has made."""

    running: np.ndarray | None = None  # (jobs,) at the previous tick
    created_s: tuple[tuple[float, ...], ...] = ()  # of the starting pods of each job, oldest first
    changes: Window = ()  # (time of a tick in s, change of the target)


def follow(state: PodState, observation: Observation) -> tuple[PodState, np.ndarray]:
    """The state after this tick, and how many ready pods have no measured CPU yet, (jobs,).

    That is a pod's first tick after it was ready, in the first five minutes of its life.
    """
    now_s, running = observation.now_s, observation.running
    before = running if state.running is None else state.running
    created = state.created_s or ((),) * len(running)
    unmeasured, waiting = np.zeros(len(running), np.int64), []
    for job, times in enumerate(created):
        new = max(0, int(running[job] - before[job]))
        begun = [*times[:new], *(now_s,) * (new - len(times))]
        unmeasured[job] = sum(at_s + INITIALIZATION_S > now_s for at_s in begun)
        starting = max(0, int(observation.starting[job]))
        left = times[new:][:starting]
        waiting.append((*left, *(now_s,) * (starting - len(left))))
    return replace(state, running=running, created_s=tuple(waiting)), unmeasured


def pods_wanted(
    used: int, target: int, ready: int, unready: int, now: int, tolerance: float
) -> int | None:
    """`GetResourceReplicas` for one job; None if no pod is measured.

    used : thousandths of a core that a ready pod uses; it requests a core.
    """
    if not ready:
        return None

    def ratio_of(pods: int) -> float:
        percent = used * ready * 100 // (MILLI * pods)  # whole per cents
        return percent / target

    def unchanged(ratio: float) -> bool:
        return 1 - tolerance <= ratio <= 1 + tolerance

    ratio = ratio_of(ready)
    if not unready or ratio <= 1:
        return now if unchanged(ratio) else int(np.ceil(ratio * ready))
    diluted = ratio_of(ready + unready)
    wanted = int(np.ceil(diluted * (ready + unready)))
    return now if unchanged(diluted) or diluted < 1 or wanted < now else wanted


@dataclass(frozen=True, slots=True)
class BuiltHPA(HPA):
    """Without a `behavior`: `normalizeDesiredReplicas`."""

    def start(self, jobs) -> PodState:
        state = HPA.start(self, jobs)
        return PodState(state.jobs, state.counter_s)

    def decide(  # type: ignore[override]
        self, state: PodState, observation: Observation
    ) -> tuple[PodState, Plan]:
        now = observation.target
        state, desired, known = self.proposal(state, observation)
        state, target = self.normalized(state, observation, desired, known)
        target = state.within_bounds(np.where(known, target, now))
        changes = appended(state.changes, observation.now_s, target - now, INITIALIZATION_S)
        return replace(state, changes=changes), reactive_plan(target, observation)

    def proposal(
        self, state: PodState, observation: Observation
    ) -> tuple[PodState, np.ndarray, np.ndarray]:
        """(state, recommended replicas, whether there is a metric); both arrays (jobs,)."""
        now = observation.target
        state, unmeasured = follow(state, observation)
        history = observation.arrivals_per_min
        if not history.shape[1]:
            return state, now, np.zeros(len(now), bool)
        busy_s = state.jobs.busy_s if observation.busy_s is None else observation.busy_s
        ready = observation.running
        used = np.minimum(1, history[:, -1] / MINUTE_S * busy_s / np.maximum(ready, 1))
        percent = round(self.utilisation * 100)
        wanted: list[int | None] = []
        for job, share in enumerate(used):
            if not np.isfinite(share):
                wanted.append(None)
                continue
            milli = int(np.ceil(round(share * 1e9) / 1e6))  # as Quantity.MilliValue rounds
            measured = int(ready[job] - unmeasured[job])
            unready = int(unmeasured[job] + max(0, observation.starting[job]))
            wanted.append(
                pods_wanted(milli, percent, measured, unready, int(now[job]), self.tolerance)
            )
        known = np.array([one is not None for one in wanted])
        return state, np.array([n if one is None else one for one, n in zip(wanted, now)]), known

    def normalized(
        self, state: PodState, observation: Observation, desired: np.ndarray, known: np.ndarray
    ) -> tuple[PodState, np.ndarray]:
        """The highest recommendation of the window, up to twice the replicas or four."""
        now, now_s = observation.target, observation.now_s
        window = state.window or ((now_s, now),)
        recent = tuple(entry for entry in window if entry[0] >= now_s - self.stabilisation_s)
        recommended = np.where(known, desired, 0)
        highest = np.max([recommended, *(values for _, values in recent)], axis=0)
        target = np.minimum(highest, np.maximum(2 * now, 4))
        return replace(state, window=(*recent, (now_s, recommended))), target


@dataclass(frozen=True, slots=True)
class BuiltBehaviorHPA(BuiltHPA):
    """With a `behavior`: its limits count what the controller asked for, in both directions."""

    up: tuple[ScalingPolicy, ...] = DEFAULT_UP
    down: tuple[ScalingPolicy, ...] = SLOW_DOWN
    stabilisation_s: float = 60.0
    name: str = "HPA-behavior"

    def normalized(
        self, state: PodState, observation: Observation, desired: np.ndarray, known: np.ndarray
    ) -> tuple[PodState, np.ndarray]:
        now, now_s = observation.target, observation.now_s
        recommended = np.where(known, desired, 0)
        before = state.window or ((now_s, now),)
        window = tuple(entry for entry in before if entry[0] > now_s - self.stabilisation_s)
        highest = np.max([recommended, *(values for _, values in window)], axis=0)
        stable = np.clip(now, desired, highest)

        def limits(policies: Sequence[ScalingPolicy], sign: int) -> list[np.ndarray]:
            found = []
            for policy in policies:
                recent = [
                    change for at_s, change in state.changes if at_s > now_s - policy.period_s
                ]
                start = now - np.sum(recent, axis=0, dtype=np.int64)
                if policy.kind == "Pods":
                    found.append(start + sign * int(policy.value))
                else:
                    wanted = start * (1 + sign * policy.value / 100)
                    found.append((np.ceil(wanted) if sign > 0 else np.trunc(wanted)).astype(int))
            return found

        most = np.maximum(np.max(limits(self.up, 1), axis=0), now)
        fewest = np.minimum(np.min(limits(self.down, -1), axis=0), now)
        target = np.clip(stable, fewest, most)
        return replace(state, window=(*window, (now_s, recommended))), target


def thousandths(values: np.ndarray) -> np.ndarray:
    """As KEDA writes metrics and thresholds."""
    return np.array([round(float(f"{value:.3f}") * MILLI) for value in values])


@dataclass(frozen=True, slots=True)
class BuiltKEDA(BuiltHPA):
    """`GetExternalPerPodMetricReplicas`, which compares with the pods instead of the target."""

    name: str = "KEDA"

    def proposal(
        self, state: PodState, observation: Observation
    ) -> tuple[PodState, np.ndarray, np.ndarray]:
        if not state.window:  # the first tick
            state = replace(state, jobs=with_ceilings(state.jobs, observation))
        now, history = observation.target, observation.arrivals_per_min
        if not history.shape[1]:
            return state, now, np.zeros(len(now), bool)
        rate_rps = history[:, -1] / MINUTE_S
        known = np.isfinite(rate_rps)
        value = thousandths(np.where(known, rate_rps, 0))
        threshold = thousandths(self.utilisation / state.jobs.busy_s)
        pods = observation.running + np.maximum(observation.starting, 0)
        ratio = value / (threshold * np.maximum(pods, 1))
        unchanged = (ratio >= 1 - self.tolerance) & (ratio <= 1 + self.tolerance)
        wanted = np.where(unchanged, pods, np.ceil(value / threshold)).astype(np.int64)
        return state, np.where(known, wanted, now), known


@dataclass(frozen=True, slots=True)
class BuiltKPA(KPA):
    """`autoscaler.Scale`: a panic keeps its own largest count, and ends a little later."""

    def decide(self, state: PanicState, observation: Observation) -> tuple[PanicState, Plan]:
        now_s = observation.now_s
        ready = np.maximum(observation.running, 1)
        window = appended(state.window, now_s, observation.ongoing, self.stable_s)
        low, high = np.floor(ready / self.down_rate), np.ceil(ready * self.up_rate)
        per_pod = self.concurrency * self.utilisation

        def desired(length_s: float) -> np.ndarray:
            recent = [ongoing for at_s, ongoing in window if at_s > now_s - length_s]
            return np.ceil(np.round(np.mean(recent, axis=0), 6) / per_pod)

        stable, brief = desired(self.stable_s), desired(self.panic_s)
        over = brief / ready >= self.threshold
        panicked_s = np.where(over, now_s, state.panicked_s)
        panicked_s = np.where(panicked_s + self.stable_s < now_s, -np.inf, panicked_s)
        panics = np.isfinite(panicked_s)
        stable, brief = np.clip(stable, low, high), np.clip(brief, low, high)
        most = np.where(panics, np.maximum.reduce([stable, brief, state.most]), 0)
        target = state.within_bounds(np.where(panics, most, stable).astype(np.int64))
        most = most.astype(np.int64)
        state = replace(state, window=window, panicked_s=panicked_s, most=most)
        return state, reactive_plan(target, observation)


@dataclass(frozen=True, slots=True)
class BuiltRayServe(RayServe):
    """A mean over time, in which the newest sample counts for a millisecond."""

    def recommend(
        self, state: ReactiveState, observation: Observation
    ) -> tuple[Window, np.ndarray]:
        now_s = observation.now_s
        window = appended(state.window, now_s, observation.ongoing, self.look_back_s)
        times = np.array([at_s for at_s, _ in window])
        lasted = np.append(np.diff(times), 1e-3)
        mean = lasted @ np.array([ongoing for _, ongoing in window]) / lasted.sum()
        running = observation.running
        share = mean / (self.ongoing * np.maximum(running, 1))
        desired = np.ceil(running + (running * share - running))
        desired = np.where(running > 0, desired, observation.target)
        return window, state.within_bounds(desired.astype(np.int64))


# By the name of the reading that lacks the rules.
BUILT: dict[str, Policy] = {
    "HPA": BuiltHPA(),
    "HPA-behavior": BuiltBehaviorHPA(),
    "KEDA": BuiltKEDA(),
    "KPA": BuiltKPA(),
    "RayServe-2.60": BuiltRayServe(),
}
