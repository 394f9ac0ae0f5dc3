"""A policy in the manner of Cilantro (OSDI'23): it learns what replicas are worth from what it sees, and knows nothing else.

No forecast: the last minute's load is the next one's. No queueing theory: latency at a load is what was seen there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.allocate import solve
from faro_lib.allocate.spare import marginal_values
from faro_lib.policies.protocol import HOLD, PLANNED, Plan, at_least_one_each, hold
from faro_lib.policies.registry import register
from faro_lib.utility import UtilityTable, precise_utility, relaxed_utility
from faro_lib.workload import Job, jobs_array
from faro_lib.workload.jobs import MINUTE_S

# Load is counted in requests per SLO and replica, so that jobs with different promises share one axis.
LOADS = np.geomspace(0.25, 16.0, 55)
SIZES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32])  # replica counts are told apart in these classes
WORST = 10.0  # SLOs; a latency above it, or infinite, counts as this
IGNORANCE = 0.5  # observations that the first belief is worth, at each load
KINSHIP = 2.0  # observations that what other replica counts showed is worth, at each load


@dataclass(frozen=True, slots=True)
class LearnedLatency:
    """Percentile of latency by load and replicas, learned from (load, replicas, latency) alone.

    log(latency / SLO) is averaged in cells of load per replica and replica count, and made to rise with the load
    (isotonic regression) and to fall with the replicas. Cells that saw little lean on what all counts together showed at
    that load, and that on the first belief: a replica is busy with a request for a whole SLO, latency / SLO = load.

    Attributes
    ----------
    kinds : names of what is learned separately.
    seen, total : (kinds, sizes, loads), observations and their sum of log(latency / SLO).
    log_latency : (kinds, sizes, loads), what is believed.
    """

    kinds: tuple[str, ...]
    seen: np.ndarray
    total: np.ndarray
    log_latency: np.ndarray

    @classmethod
    def ignorant(cls, kinds) -> LearnedLatency:
        """Before the first observation.

        >>> LearnedLatency.ignorant(["resnet34"]).latency_s("resnet34", 0.5, [1.0, 4.0], 1).round(2).tolist()
        [0.25, 1.0]
        """
        kinds = tuple(dict.fromkeys(kinds))
        nothing = np.zeros((len(kinds), len(SIZES), len(LOADS)))
        return cls(kinds, nothing, nothing, nothing + np.log(LOADS))

    def learn(self, kinds, slo_s, rate_rps, replicas, latency_s) -> LearnedLatency:
        """After some observations more; arrays of shape (observations,)."""
        if not len(kinds):
            return self
        seen, total, log_latency = self.seen.copy(), self.total.copy(), self.log_latency.copy()
        load = np.clip(rate_rps * slo_s / replicas, LOADS[0], LOADS[-1])
        step = np.log(LOADS[1] / LOADS[0])
        cells = (
            np.array([self.kinds.index(kind) for kind in kinds]),
            np.searchsorted(SIZES, replicas, side="right") - 1,
            np.rint(np.log(load / LOADS[0]) / step).astype(int),
        )
        np.add.at(seen, cells, 1.0)
        np.add.at(total, cells, np.log(np.clip(latency_s / slo_s, 1e-6, WORST)))
        for kind in np.unique(cells[0]):
            log_latency[kind] = _believed(seen[kind], total[kind])
        return LearnedLatency(self.kinds, seen, total, log_latency)

    def latency_s(self, kind: str, slo_s: float, rate_rps, replicas) -> np.ndarray:
        """Believed percentile of latency; `rate_rps` and `replicas` broadcast. Beyond the last load it grows with it.

        NaN at a rate of NaN; infinite without replicas.
        """
        rate_rps, replicas = np.broadcast_arrays(np.asarray(rate_rps, float), np.asarray(replicas, float))
        load = np.maximum(rate_rps * slo_s / np.maximum(replicas, 1e-12), LOADS[0])
        believed = self.log_latency[self.kinds.index(kind)]
        size = np.clip(np.searchsorted(SIZES, replicas, side="right") - 1, 0, None)
        place = np.log(np.minimum(load, LOADS[-1]) / LOADS[0]) / np.log(LOADS[1] / LOADS[0])
        below = np.clip(np.nan_to_num(place).astype(int), 0, len(LOADS) - 2)
        part = place - below
        log_latency = (1 - part) * believed[size, below] + part * believed[size, below + 1]
        latency_s = slo_s * np.exp(log_latency) * np.maximum(1.0, load / LOADS[-1])
        return np.where(replicas > 0, latency_s, np.inf)

    def expected_utility(self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0) -> np.ndarray:
        """Utility of `job` at constant rates; what `utility.build_table` asks of a latency_model model."""
        kind = job.model if job.model in self.kinds else job.name
        latency_s = self.latency_s(kind, job.slo_s, rate_rps, replicas)
        return precise_utility(latency_s, job.slo_s) if utility == "precise" else relaxed_utility(
            latency_s, job.slo_s, alpha
        )  # fmt: skip


def _believed(seen, total) -> np.ndarray:
    """(sizes, loads) -> what is believed of log(latency / SLO), monotone in both."""
    from scipy.optimize import isotonic_regression

    weight = IGNORANCE + seen.sum(axis=0)
    together = isotonic_regression((IGNORANCE * np.log(LOADS) + total.sum(axis=0)) / weight, weights=weight).x
    weights = KINSHIP + seen
    rising = np.array(
        [isotonic_regression(y, weights=w).x for y, w in zip((KINSHIP * together + total) / weights, weights)]
    )
    # Both envelopes over the sizes keep what rises with the load rising; so does their mean.
    from_above = np.minimum.accumulate(rising, axis=0)
    from_below = np.maximum.accumulate(rising[::-1], axis=0)[::-1]
    return (from_above + from_below) / 2


@dataclass(frozen=True, slots=True)
class CilantroState:
    jobs: tuple[Job, ...]
    kinds: tuple[str, ...]  # of each job
    slo_s: np.ndarray
    most: np.ndarray
    model: LearnedLatency
    rate_rps: np.ndarray  # of the last minute whose count is known; NaN before
    minute: int = 0
    running: np.ndarray | None = None  # at the last look


@dataclass(frozen=True, slots=True)
class Cilantro:
    """Once a minute: learn from the minute that ended, and maximise the sum of the utilities believed at its load.

    Attributes
    ----------
    pooled : jobs that run the same model learn together; else each for itself.
    """

    pooled: bool = True
    name: str = "Cilantro"
    tick_s: float = 60.0

    def initial(self, jobs, capacity):
        return at_least_one_each(jobs, capacity)

    def start(self, jobs):
        kinds = tuple(job.model if self.pooled else job.name for job in jobs)
        return CilantroState(
            jobs,
            kinds,
            jobs_array(jobs, "slo_s"),
            jobs_array(jobs, "max_replicas"),
            LearnedLatency.ignorant(kinds),
            np.full(len(jobs), np.nan),
        )

    def decide(self, state, observation):
        if observation.minute == state.minute:
            return state, hold(observation)
        state = learn(state, observation)
        return state, self.plan(state, observation)

    def plan(self, state, observation) -> Plan:
        rate_rps, now = state.rate_rps, observation.target
        most = int(min(observation.capacity / jobs_array(state.jobs, "cores").min(), state.most.max()))
        counts = np.arange(most + 1)
        # A job whose load was never known keeps at least what it has.
        value = [
            np.where(counts < target, 0.0, 1.0)
            if np.isnan(rate)
            else state.model.expected_utility(job, rate, counts, "relaxed")
            if rate > 0
            else np.ones(most + 1)
            for job, rate, target in zip(state.jobs, rate_rps, now)
        ]
        table = UtilityTable.from_values(state.jobs, value, running=np.minimum(observation.running, most))
        chosen = solve(table, observation.capacity, "Sum", current=now)
        marginal = marginal_values(table, chosen)
        predicted_s = np.array(
            [
                state.model.latency_s(kind, job.slo_s, rate, replicas)
                for kind, job, rate, replicas in zip(state.kinds, state.jobs, rate_rps, chosen.replicas)
            ]
        )
        return Plan(
            chosen.replicas,
            np.zeros(len(now)),
            tuple(PLANNED if moved else HOLD for moved in chosen.replicas != now),
            attempts=5,
            forecast_rps=rate_rps,
            predicted_tail_latency_s=predicted_s,
            marginal_value_up=marginal.more,
            marginal_value_down=marginal.less,
        )


def learn(state: CilantroState, observation) -> CilantroState:
    """Of the minute that ended: jobs whose replicas did not change in it, with requests, and with all that is needed."""
    rate_rps = observation.arrivals_per_min[:, -1] / MINUTE_S
    running = observation.running
    before = running if state.running is None else state.running
    steady = (running == before) & (running > 0) & ~observation.changing
    known = steady & (rate_rps > 0) & ~np.isnan(observation.tail_latency_s)
    model = state.model.learn(
        [kind for kind, is_known in zip(state.kinds, known) if is_known],
        state.slo_s[known],
        rate_rps[known],
        running[known],
        observation.tail_latency_s[known],
    )
    rate_rps = np.where(np.isnan(rate_rps), state.rate_rps, rate_rps)
    return replace(state, model=model, rate_rps=rate_rps, minute=observation.minute, running=running)


register("Cilantro")(lambda context: Cilantro())
