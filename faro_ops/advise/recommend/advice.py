"""Replicas for the coming minutes: one decision of the policy `Faro`, with a reason per job."""

from dataclasses import dataclass, fields, replace

import numpy as np

from faro_lib.policies import Faro, Observation, Plan
from faro_lib.policies.loops import fold_minutes
from faro_lib.queueing import LatencyModel
from faro_lib.utility import UtilityTable, predicted_latency
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import at_least_one_each

# Smaller utility gains are ignored, because utilities just below 1 have errors of 0.01 to 0.05.
LEAST_GAIN = 0.01
IDLE = 0.05  # utilisation of replicas that are idle most of the time


@dataclass(frozen=True, slots=True)
class Advice:
    """A plan and the predictions that explain it; arrays have shape (jobs,).

    Attributes
    ----------
    forecast_rps : mean forecast rate of the coming minutes.
    prediction_interval_rps : 80 % prediction interval of the rate in a single coming minute,
        (2, jobs).
    tail_latency_s, one_less_s : predicted tail latency with the planned replicas, and with one
        replica less.
    required_replicas : smallest tried count that meets the SLO at the forecast rate; 0 if none
        does. The largest count tried is twice the largest count that any job can have.
    idle_s : predicted tail latency with many replicas, which are idle most of the time.
    """

    jobs: tuple[Job, ...]
    capacity: float
    plan: Plan
    forecast_rps: np.ndarray
    prediction_interval_rps: np.ndarray
    tail_latency_s: np.ndarray
    required_replicas: np.ndarray
    one_less_s: np.ndarray
    idle_s: np.ndarray

    @property
    def slo_met(self) -> np.ndarray:
        """Whether the job is predicted to meet its SLO, bool (jobs,)."""
        return self.tail_latency_s <= arrays_of(self.jobs).slo_s

    @property
    def used(self) -> float:
        """Cores that the plan uses."""
        return float(self.plan.target @ arrays_of(self.jobs).cores)

    def reason(self, index: int) -> str:
        """A sentence that explains the replica count of the job at this index."""
        job, planned, one_less_s = self.jobs[index], self.plan.target[index], self.one_less_s[index]
        if not self.slo_met[index]:
            return f"misses its SLO; {self._remedy(index)}"
        if planned <= max(1, job.min_replicas):
            return "its minimum suffices"
        if one_less_s > job.slo_s:
            return f"one less would miss the SLO ({self._latency_with_one_less(index)})"
        down = self.plan.marginal_value_down
        loss = np.nan if down is None else down[index]
        if loss < 0.0005:
            return f"SLO also met with {self.required_replicas[index]}; the rest is spare"
        return f"one less would cost {loss:.3f} utility"

    def _latency_with_one_less(self, index: int) -> str:
        load = self.forecast_rps[index] * self.jobs[index].busy_s  # erlangs
        one_less_s = self.one_less_s[index]
        if load >= self.plan.target[index] - 1 or np.isinf(one_less_s):
            return "unbounded queue"
        return f"{1000 * one_less_s:.0f} ms"

    def _remedy(self, index: int) -> str:
        """A phrase on how the job could meet its SLO, or on why it cannot."""
        job, idle_s, required = self.jobs[index], self.idle_s[index], self.required_replicas[index]
        if required:
            return f"{required} would meet it"
        if idle_s <= job.slo_s:
            return f"the load keeps {self.forecast_rps[index] * job.busy_s:.0f} replicas busy"
        if not np.isfinite(idle_s):
            return "more would not help"
        idle = f"p{100 * job.quantile:g} on an idle replica is {1000 * idle_s:.4g} ms"
        return f"no number of replicas meets it: {idle}"


@dataclass(frozen=True, slots=True)
class Sparing(Faro):
    """Faro, but a job gets no more replicas once its utility is within LEAST_GAIN of its maximum.

    The current replicas may be unknown, so cold starts and switching costs are ignored, and idle
    cores stay unused.
    """

    @classmethod
    def like(cls, policy: Faro) -> "Sparing":
        settings = {field.name: getattr(policy, field.name) for field in fields(Faro)}
        return cls(
            **settings | {"cold_start_minutes": 0.0, "switching_cost": 0.0, "reserve": False}
        )

    def expected_utilities(
        self, jobs: tuple[Job, ...], rates_rps: np.ndarray, current: np.ndarray, capacity: float
    ) -> UtilityTable:
        table = Faro.expected_utilities(self, jobs, rates_rps, current, capacity)
        most_rps = rates_rps.max(axis=(1, 2))
        return without_small_gains(table, LEAST_GAIN, most_rps, self.latency_model)


def without_small_gains(
    table: UtilityTable, least: float, most_rps: np.ndarray, latency_model: LatencyModel
) -> UtilityTable:
    """Remove utility gains that may be errors of the latency model.

    Solvers would add replicas for such gains. The latency model is coarse below utilisation IDLE.
    Once a job's utilisation at `most_rps` (jobs,) is at most IDLE, further replicas therefore add
    no utility. Then utilities within `least` of a job's maximum become the maximum.
    """
    arrays = arrays_of(table.jobs)
    busy_s = np.array([latency_model.busy_s(job) for job in table.jobs])
    idle = np.ceil(most_rps * busy_s / IDLE)
    idle = np.maximum(idle, np.maximum(arrays.min_replicas, 1)).astype(int)
    column = np.minimum(np.arange(table.columns + 1), idle[:, None])

    def flat(utility: np.ndarray) -> np.ndarray:
        levelled = np.take_along_axis(utility, column, axis=1)
        utility = np.where(np.isneginf(utility), utility, levelled)
        best = utility.max(axis=1, keepdims=True)
        return np.where(utility >= best - least, best, utility)

    drop = np.take_along_axis(table.drop, column, axis=1)
    return replace(table, value=flat(table.value), effective=flat(table.effective), drop=drop)


def advise(jobs: tuple[Job, ...], counts, policy: Faro, capacity: float) -> Advice:
    """Plan the replicas of the coming minutes on `capacity` cores, and predict their latencies.

    `counts` are requests per minute from minute 0 of the day on, (jobs, minutes), NaN = missing.
    The policy is changed as `Sparing` says.
    """
    policy = Sparing.like(policy)
    observation = idle_cluster(jobs, np.asarray(counts, float), capacity)
    state = fold_minutes(policy.start(jobs), observation)
    decision = policy.decision(state, observation)
    plan, paths_rps = decision.plan, decision.rates_rps
    forecast_rps = paths_rps.mean(axis=(1, 2))

    def tail_latency_s(replicas: np.ndarray) -> np.ndarray:
        """The predicted latencies without drops, (jobs,)."""
        return predicted_latency(jobs, forecast_rps, replicas, latency_model=policy.latency_model)

    arrays = arrays_of(jobs)
    most = np.clip(arrays.replicas_within(capacity), arrays.min_replicas, arrays.max_replicas)
    tried = range(2 * max(1, most.max()) + 1)
    by_count_s = np.stack([tail_latency_s(np.full(len(jobs), x)) for x in tried], axis=1)
    # Without noise: more replicas are never slower.
    by_count_s[:, 1:] = np.minimum.accumulate(by_count_s[:, 1:], axis=1)
    some_s = by_count_s[:, 1:]  # (jobs, counts from 1)
    meets = some_s <= arrays.slo_s[:, None]
    many = np.ceil(forecast_rps * arrays.busy_s / IDLE) + 1
    each = np.arange(len(jobs))
    return Advice(
        jobs=jobs,
        capacity=capacity,
        plan=plan,
        forecast_rps=forecast_rps,
        prediction_interval_rps=np.quantile(paths_rps, (0.1, 0.9), axis=(1, 2)),
        tail_latency_s=by_count_s[each, plan.target],
        required_replicas=np.where(meets.any(axis=1), meets.argmax(axis=1) + 1, 0),
        one_less_s=by_count_s[each, np.maximum(plan.target - 1, 0)],
        idle_s=np.minimum(some_s[:, -1], tail_latency_s(many)),
    )


def idle_cluster(jobs: tuple[Job, ...], counts: np.ndarray, capacity: float) -> Observation:
    """An observation after `counts` (jobs, minutes), with the minimum replicas and no requests."""
    none, minutes = np.zeros(len(jobs)), counts.shape[1]
    running = at_least_one_each(jobs, capacity)
    return Observation(
        now_s=minutes * MINUTE_S,
        capacity=capacity,
        minute=minutes,
        arrivals_per_min=counts,
        mean_latency_s=none,
        tail_latency_s=none,
        ongoing=none,
        running=running,
        starting=none.astype(int),
        target=running,
        terminating=none.astype(int),
        changing=none.astype(bool),
        drop=none,
    )
