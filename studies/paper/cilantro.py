"""A plugin: a policy like Cilantro (OSDI'23), which learns latencies from observations alone.

It learns them by load and replica count. Its forecast is the load of the last minute.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from faro_lib.allocate import marginal_values, solve
from faro_lib.policies.factories import register
from faro_lib.protocol import PLAN_ATTEMPTS, Observation, Plan, hold, reasons
from faro_lib.queueing import LatencyModel, utility_of
from faro_lib.simulate import Run
from faro_lib.utility import UtilityTable
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import at_least_one_each
from studies.tables.prediction_errors import WORST
from studies.tables.run_tables import running_by_minute

# Load is in requests per replica per SLO duration, so that jobs with different SLOs are comparable.
LOADS = np.geomspace(0.25, 16.0, 55)
LOG_STEP = np.log(LOADS[1] / LOADS[0])
# Lower bounds of the classes of replica counts.
SIZES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32])
PRIOR_WEIGHT = 0.5  # weight of the prior at each load, in observations
POOLED_WEIGHT = 2.0  # weight of the mean over all classes in the estimate for a class


@dataclass(frozen=True, slots=True)
class LearnedLatency(LatencyModel):
    """Latency quantile by load and replica count, learned from observations.

    log(latency / SLO) is averaged in cells of load per replica and replica count. The average of a
    cell with few observations shrinks towards the mean over all replica counts at its load. That
    mean shrinks towards a prior: latency / SLO = load, as if a request occupied a replica for one
    SLO. The estimate is then made monotone. It rises with the load (isotonic regression) and falls
    with the replicas.
    """

    kinds: tuple[str, ...]  # names of the models that jobs serve
    count: np.ndarray  # (kinds, sizes, loads) observations
    total: np.ndarray  # (kinds, sizes, loads) sum of log(latency / SLO) over the observations
    log_latency: np.ndarray  # (kinds, sizes, loads) estimate of log(latency / SLO)

    @classmethod
    def prior(cls, kinds: Iterable[str]) -> Self:
        """The estimate before the first observation.

        >>> prior = LearnedLatency.prior(["resnet34"])
        >>> prior.latency_s("resnet34", 0.5, [1.0, 4.0], 1).round(2).tolist()
        [0.25, 1.0]
        """
        kinds = tuple(dict.fromkeys(kinds))
        zeros = np.zeros((len(kinds), len(SIZES), len(LOADS)))
        return cls(kinds, zeros, zeros, zeros + np.log(LOADS))

    def learn(
        self,
        kinds: Sequence[str],
        slo_s: np.ndarray,
        rate_rps: np.ndarray,
        replicas: np.ndarray,
        latency_s: np.ndarray,
    ) -> Self:
        """The estimate after more observations; the arguments have shape (observations,)."""
        if not len(kinds):
            return self
        count = self.count.copy()
        total = self.total.copy()
        log_latency = self.log_latency.copy()
        load = np.clip(rate_rps * slo_s / replicas, LOADS[0], LOADS[-1])
        cells = (
            np.array([self.kinds.index(kind) for kind in kinds]),
            size_class(replicas),
            np.rint(np.log(load / LOADS[0]) / LOG_STEP).astype(int),
        )
        np.add.at(count, cells, 1.0)
        np.add.at(total, cells, np.log(np.clip(latency_s / slo_s, 1e-6, WORST)))
        for kind in np.unique(cells[0]):
            log_latency[kind] = monotone_estimate(count[kind], total[kind])
        return replace(self, count=count, total=total, log_latency=log_latency)

    def latency_s(
        self, kind: str, slo_s: float, rate_rps: ArrayLike, replicas: ArrayLike
    ) -> np.ndarray:
        """Estimated latency quantile in seconds; `rate_rps` and `replicas` broadcast.

        Beyond the largest of LOADS, it is proportional to the load. It is NaN for a rate of NaN,
        and infinite without replicas.
        """
        rate_rps, replicas = np.broadcast_arrays(
            np.asarray(rate_rps, float), np.asarray(replicas, float)
        )
        load = np.maximum(rate_rps * slo_s / np.maximum(replicas, 1e-12), LOADS[0])
        estimate = self.log_latency[self.kinds.index(kind)]
        size = np.maximum(size_class(replicas), 0)
        position = np.log(np.minimum(load, LOADS[-1]) / LOADS[0]) / LOG_STEP
        below = np.clip(np.nan_to_num(position).astype(int), 0, len(LOADS) - 2)
        weight = position - below
        log_latency = (1 - weight) * estimate[size, below] + weight * estimate[size, below + 1]
        latency_s = slo_s * np.exp(log_latency) * np.maximum(1.0, load / LOADS[-1])
        return np.where(replicas > 0, latency_s, np.inf)

    def tail_latency_s(self, job: Job, rate_rps, replicas) -> np.ndarray:
        return self.latency_s(job.model, job.slo_s, rate_rps, replicas)

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        tail_s = self.tail_latency_s(job, rate_rps, replicas)
        return utility_of(tail_s, job.slo_s, utility, alpha)


def size_class(replicas: ArrayLike) -> np.ndarray:
    """Index of the largest of SIZES that does not exceed each replica count; -1 for 0 replicas."""
    return np.searchsorted(SIZES, replicas, side="right") - 1


def monotone_estimate(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Monotone estimate of log(latency / SLO) from the cells of one model.

    All arrays have shape (sizes, loads).
    """
    from scipy.optimize import isotonic_regression

    weight = PRIOR_WEIGHT + count.sum(axis=0)
    mean = (PRIOR_WEIGHT * np.log(LOADS) + total.sum(axis=0)) / weight
    pooled = isotonic_regression(mean, weights=weight).x
    weights = POOLED_WEIGHT + count
    means = (POOLED_WEIGHT * pooled + total) / weights
    rising = np.array([isotonic_regression(y, weights=w).x for y, w in zip(means, weights)])
    # Both envelopes fall with the replicas and still rise with the load, and so does their mean.
    from_above = np.minimum.accumulate(rising, axis=0)
    from_below = np.maximum.accumulate(rising[::-1], axis=0)[::-1]
    return (from_above + from_below) / 2


@dataclass(frozen=True, slots=True)
class CilantroState:
    """The learned latency model and the last known load."""

    jobs: tuple[Job, ...]
    model: LearnedLatency
    rate_rps: np.ndarray  # (jobs,) in the latest minute with a known count; NaN before the first
    minute: int = 0
    running: np.ndarray | None = None  # (jobs,) replicas at the last decision


@dataclass(frozen=True, slots=True)
class Cilantro:
    """After each minute, update the learned latencies, and maximise utility at that minute's load.

    Jobs with the same model share one estimate.
    """

    name: str = "Cilantro"
    tick_s: float = 60.0

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return at_least_one_each(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> CilantroState:
        model = LearnedLatency.prior(job.model for job in jobs)
        return CilantroState(jobs, model, np.full(len(jobs), np.nan))

    def decide(self, state: CilantroState, observation: Observation) -> tuple[CilantroState, Plan]:
        if observation.minute == state.minute:
            return state, hold(observation)
        state = learn(state, observation)
        return state, self.plan(state, observation)

    def plan(self, state: CilantroState, observation: Observation) -> Plan:
        now = observation.target
        jobs = arrays_of(state.jobs)
        within = jobs.replicas_within(observation.capacity).max()
        columns = 1 + int(min(within, jobs.max_replicas.max()))
        counts = np.arange(columns)

        def value(job: Job, rate_rps: float, target: int) -> np.ndarray:
            if np.isnan(rate_rps):  # unknown load: do not scale below the target
                return np.where(counts < target, 0.0, 1.0)
            if rate_rps == 0:
                return np.ones(columns)
            return state.model.expected_utility(job, rate_rps, counts, "relaxed")

        values = [value(*row) for row in zip(state.jobs, state.rate_rps, now)]
        running = np.minimum(observation.running, columns - 1)
        table = UtilityTable.from_values(state.jobs, values, running=running)
        allocation = solve(table, observation.capacity, "Sum", current=now)
        value_up, value_down = marginal_values(table, allocation)
        rows = zip(state.jobs, state.rate_rps, allocation.replicas)
        return Plan(
            target=allocation.replicas,
            drop=np.zeros(len(now)),
            reason=reasons(allocation.replicas, now),
            attempts=PLAN_ATTEMPTS,
            forecast_rps=state.rate_rps,
            predicted_tail_latency_s=np.array([state.model.tail_latency_s(*row) for row in rows]),
            marginal_value_up=value_up,
            marginal_value_down=value_down,
        )


def learn(state: CilantroState, observation: Observation) -> CilantroState:
    """Learn from the last minute of the jobs that had requests and a constant replica count."""
    rate_rps = observation.arrivals_per_min[:, -1] / MINUTE_S
    running = observation.running
    before = running if state.running is None else state.running
    steady = (running == before) & (running > 0) & ~observation.changing
    known = steady & (rate_rps > 0) & ~np.isnan(observation.tail_latency_s)
    model = state.model.learn(
        [job.model for job, is_known in zip(state.jobs, known) if is_known],
        arrays_of(state.jobs).slo_s[known],
        rate_rps[known],
        running[known],
        observation.tail_latency_s[known],
    )
    rate_rps = np.where(np.isnan(rate_rps), state.rate_rps, rate_rps)
    return replace(
        state, model=model, rate_rps=rate_rps, minute=observation.minute, running=running
    )


def learning_curve(
    run: Run,
    scored_on: Run | None = None,
    after_minutes: Sequence[int] = (0, 5, 15, 30, 60, 120, 240, 360),
) -> pd.DataFrame:
    """Error of the `LearnedLatency` after N minutes of learning.

    Every N is scored on the same job-minutes, because errors at peaks and at other times are not
    comparable. The job-minutes are those of `scored_on`, for example another trial, and by default
    those of `run`.

    Columns: minute (N); log_error, mean error as in `prediction_errors`; observations, number of
    job-minutes used.
    """
    of_job, minute, *learned = _steady_minutes(run)
    scored_job, _, *scored = _steady_minutes(scored_on or run)
    kinds = np.array([job.model for job in run.workload.jobs])
    slo_s = arrays_of(run.workload.jobs).slo_s
    model = LearnedLatency.prior(kinds)
    rows = []
    done = 0  # job-minutes learned
    for until in sorted(min(m, run.workload.minutes) for m in after_minutes):
        part = slice(done, int(np.searchsorted(minute, until)))
        model = model.learn(
            list(kinds[of_job[part]]), slo_s[of_job[part]], *(values[part] for values in learned)
        )
        done = part.stop
        errors = []
        for job in np.unique(scored_job):
            rate_rps, replicas, measured_s = (values[scored_job == job] for values in scored)
            predicted_s = model.latency_s(kinds[job], slo_s[job], rate_rps, replicas)
            worst_s = WORST * slo_s[job]
            ratio = np.minimum(predicted_s, worst_s) / np.minimum(measured_s, worst_s)
            errors.append(np.abs(np.log(ratio)))
        rows.append((until, float(np.concatenate(errors).mean()), done))
    table = pd.DataFrame(rows, columns=["minute", "log_error", "observations"])
    return table.drop_duplicates("minute")


def _steady_minutes(run: Run) -> tuple[np.ndarray, ...]:
    """Job-minutes with requests and an unchanged replica count.

    Returns (job, minute, rate_rps, replicas, tail_latency_s), in the order of the minutes.
    """
    running = running_by_minute(run)  # (jobs, minutes)
    requests = run.requests[:, :-1]
    steady = (running > 0) & (requests > 0)
    steady &= np.diff(running, axis=1, prepend=run.initial[:, None]) == 0
    minute, job = np.nonzero(steady.T)
    rate_rps = requests[job, minute] / MINUTE_S
    return job, minute, rate_rps, running[job, minute], run.tail_latency_s[job, minute]


register("Cilantro")(lambda context: Cilantro())
