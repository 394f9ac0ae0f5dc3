"""Services that are not as stated: what do wrong service times, and bursts, cost each policy?

In a `World`, the replicas that serve differ from what the policies assume. All policies meet the
same requests. The rivals measure: the HPA sees the utilisation of its own CPUs
(`Observation.busy_s`), Ray Serve's rule sees the requests in its replicas, and AIAD sees latencies.
Their targets are chosen on a training day in the same world.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, run_trials, trial_seeds
from faro_lib.metrics.measures import lost_utility, minute_utility, summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.policies.faro import tuned
from faro_lib.policies.learning import Learned, Learner
from faro_lib.protocol import Observation, Plan, Wrapper
from faro_lib.queueing import LatencyModel, LatencyTable
from faro_lib.queueing.service_factor import mean_factor
from faro_lib.simulate import Draws, Run, ServingModel, draw
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.measure import measure
from faro_lib.simulate.misstated import Elsewhere, LongRequests, Misstated, Spells
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.service import true_busy_s

ASSUMING, LEARNING, KNOWING = "Faro-Sum", "Faro-Sum, learning", "Faro-Sum, knowing"
FAROS = (ASSUMING, LEARNING, KNOWING)
# Rivals and the policies among which their best one is chosen.
RIVALS: Mapping[str, tuple[str, ...]] = {
    "HPA": ("HPA-50", "HPA-60", "HPA-70", "HPA-80"),
    "RayServe": ("RayServe", "RayServe-2.60"),
    "AIAD": ("AIAD",),
}
FIRST_MINUTES = 30  # in which a policy that learns may not know the services yet
BLOCK_MINUTES = 30  # of a block of minutes, whose losses are resampled
TRAINING_SEED = 7
# Requests reach replicas as through a Service of Kubernetes, and wait there.
AT_RANDOM = ServingModel("random", max_ongoing_requests=50)
SLOW_CHANGE_MINUTES = 30.0  # after which slow and fast times of a service are forgotten


@dataclass(frozen=True, slots=True)
class World:
    """How the services differ from what is assumed."""

    name: str
    factor: np.ndarray  # true / assumed service time, (jobs, minutes)
    scv_factor: float = 1.0  # on the squared coefficient of variation of the service times
    # Coefficient of variation of the times between arrivals within a minute; None: as published.
    burstiness: float | None = None
    misstated: Misstated | None = None  # how the services differ in shape
    serving_model: ServingModel = PAPER

    @property
    def wrong_by_shape(self) -> bool:
        """Whether no factor on the service times makes the stated latencies right."""
        return self.misstated is not None or self.serving_model != PAPER

    def draws(self, workload: Workload, seed: int) -> Draws:
        """The random numbers of a trial in this world."""
        router = self.serving_model.router
        draws = draw(workload, seed, router=router, scv_factor=self.scv_factor)
        if self.misstated is not None:
            draws = self.misstated(draws)
        if self.burstiness is not None:
            rng = np.random.default_rng([seed, 5])
            arrival_s = renewal_arrivals(workload.requests_per_min, self.burstiness, rng)
            draws = replace(draws, arrival_s=arrival_s)
        minute = np.minimum(draws.arrival_s // MINUTE_S, workload.minutes - 1).astype(int)
        job = np.repeat(np.arange(len(workload.jobs)), np.diff(draws.first))
        stated_s = np.array([true_busy_s(job) for job in workload.jobs])
        return replace(
            draws,
            service_s=draws.service_s * self.factor[job, minute],
            busy_s=stated_s[:, None] * self.factor,
        )


def renewal_arrivals(counts: np.ndarray, variation: float, rng: np.random.Generator) -> np.ndarray:
    """Arrival times (requests,) in s, sorted by job and time; `counts` is (jobs, minutes).

    Within a minute with n requests, the n + 1 gaps are gamma variates with this coefficient of
    variation, scaled to the minute. With 1, arrivals are uniform in their minute.
    """
    shape = 1 / variation**2
    parts = []
    for of_job in counts:
        for minute, n in enumerate(of_job.tolist()):
            until = np.cumsum(rng.gamma(shape, size=n + 1) + np.finfo(float).tiny)
            parts.append((minute + until[:-1] / until[-1]) * MINUTE_S)
    return np.concatenate(parts)


def alternating(jobs: int, factor: float) -> np.ndarray:
    """Every other service `factor` times slower, the others as much faster; (jobs, 1)."""
    slower = np.arange(jobs) % 2 == 0
    return np.where(slower, factor, 1 / factor)[:, None]


def worlds(jobs: int, minutes: int, seed: int = 0) -> Iterator[World]:
    """The worlds of the experiment."""
    as_stated = np.ones((jobs, minutes))
    yield World("as stated", as_stated)
    for percent in (10, 20, 25, 30, 40, 100):
        yield World(f"±{percent} %", alternating(jobs, 1 + percent / 100) * as_stated)
    yield World("all +30 %", 1.3 * as_stated)
    later = np.arange(minutes) >= minutes // 2
    yield World("roll-out at noon", np.where(later, alternating(jobs, 1.5), 1.0))
    share = np.linspace(0.0, 1.0, minutes)
    yield World("drift to ±50 %", alternating(jobs, 1.5) ** share)
    yield World("hours slow, hours fast", _correlated(jobs, minutes, seed))
    yield World("spread twice as large", as_stated, scv_factor=4.0)
    yield World("at random", as_stated, serving_model=AT_RANDOM)
    yield World("heavy tail", as_stated, misstated=LongRequests())
    yield World("slow spells", as_stated, misstated=Spells())
    yield World("100 ms elsewhere", as_stated, misstated=Elsewhere())
    for variation in (1.0, 2.0, 3.0):
        yield World(f"bursts, CV {variation:g}", as_stated, burstiness=variation)


def _correlated(jobs: int, minutes: int, seed: int) -> np.ndarray:
    """Factors (jobs, minutes) whose logs are autoregressions with standard deviation 0.2."""
    keep = float(np.exp(-1 / SLOW_CHANGE_MINUTES))
    steps = np.random.default_rng([seed, 6]).normal(0.0, 0.2, (jobs, minutes))
    steps[:, 1:] *= np.sqrt(1 - keep**2)
    logs = np.empty_like(steps)
    level = np.zeros(jobs)
    for minute in range(minutes):
        level = steps[:, minute] + (keep * level if minute else 0.0)
        logs[:, minute] = level
    return np.exp(logs)


@dataclass(frozen=True, slots=True)
class Known(Learner):
    """Knows the factors (jobs, minutes) of a world: what learning at its best would be."""

    of: np.ndarray = field(kw_only=True)

    def updated(
        self,
        jobs: tuple[Job, ...],
        learned: Learned,
        observation: Observation,
        latency_model: LatencyModel,
    ) -> Learned:
        return replace(learned, minute=observation.minute)

    def mean_factors(self, learned: Learned) -> np.ndarray:
        return self.of[:, min(learned.minute, self.of.shape[1] - 1)]

    def factors(self, learned: Learned, count: int) -> np.ndarray:
        return np.repeat(self.mean_factors(learned)[:, None], count, axis=1)


@dataclass(frozen=True, slots=True)
class Remembers(Wrapper):
    """Keeps what the policy had learned at each tick."""

    learned: list[Learned]

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        state, plan = self.policy.decide(state, observation)
        self.learned.append(state.learned)
        return state, plan


def faros(context: PolicyContext, world: World, capacity: float) -> dict[str, Policy]:
    """Faro that believes what is stated, that learns, and that knows the truth.

    Where no factor tells the truth, the last one has a latency table that is measured in the world.
    """
    if world.wrong_by_shape:
        known = tuned(context, latency_model=true_table(context.jobs, world, capacity))
    else:
        known = tuned(context, learner=Known(of=world.factor))
    return {
        ASSUMING: tuned(context),
        LEARNING: replace(tuned(context, learner=Learner()), name=LEARNING),
        KNOWING: replace(known, name=KNOWING),
    }


def true_table(jobs: tuple[Job, ...], world: World, capacity: float) -> LatencyTable:
    """The latencies of the services as they are in this world."""
    return measure(
        jobs, capacity=capacity, serving_model=world.serving_model, misstated=world.misstated
    )


def lost_later(run: Run) -> float:
    """Lost cluster utility of the minutes after FIRST_MINUTES, as a mean per minute."""
    return lost_utility(minute_utility(run)[:, FIRST_MINUTES:])


def lost_by_block(run: Run) -> np.ndarray:
    """Loss of the whole cluster summed over each BLOCK_MINUTES after FIRST_MINUTES, (blocks,)."""
    lost = np.nansum(1 - minute_utility(run)[:, FIRST_MINUTES:-1], axis=0)
    return np.add.reduceat(lost, np.arange(0, len(lost), BLOCK_MINUTES))


def chosen(
    traces: Traces,
    context: PolicyContext,
    world: World,
    capacity: int,
    rivals: Mapping[str, Sequence[str]] = RIVALS,
) -> pd.DataFrame:
    """The loss of every candidate of every rival on the last training day, in this world.

    Columns rival, candidate, lost_utility, chosen (whether it is the best one of its rival).
    """
    workload = traces.workload(traces.days)
    draws = [world.draws(workload, TRAINING_SEED)]
    rows = []
    for name, candidates in rivals.items():
        policies = {one: make(one, context) for one in candidates}
        model = world.serving_model
        for trial in run_trials(workload, policies, capacity, draws, serving_model=model):
            loss = summarize(trial.run)["lost_utility"]
            rows.append({"rival": name, "candidate": trial.policy, "lost_utility": loss})
    table = pd.DataFrame(rows)
    best = table.groupby("rival")["lost_utility"].idxmin()
    return table.assign(chosen=table.index.isin(best))


def compared(
    traces: Traces,
    context: PolicyContext,
    of: Sequence[World],
    capacities: Sequence[int],
    trials: int,
    rivals: Mapping[str, Sequence[str]] = RIVALS,
    report: Report | None = print,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All policies in all worlds on the evaluation day, and how the rivals were chosen.

    Without rivals, only the policy that learns runs.

    The first table has the columns world, capacity_cores, policy, trial, the measures, lost_later,
    lost_0, lost_1, ... (`lost_by_block`), and learned_error: the median over jobs and the minutes
    after FIRST_MINUTES of |learned / true factor - 1|, for the policy that learns. The second table
    is that of `chosen`.
    """
    rows, choices = [], []
    for world in of:
        for capacity in capacities:
            best: Mapping[str, str] = {}
            if rivals:
                candidates = chosen(traces, context, world, capacity, rivals)
                choices.append(candidates.assign(world=world.name, capacity_cores=capacity))
                best = candidates[candidates["chosen"]].set_index("rival")["candidate"]
            policies = faros(context, world, capacity)
            if not rivals:
                policies = {LEARNING: policies[LEARNING]}
            policies |= {name: make(one, context) for name, one in best.items()}
            rows += measured(traces, policies, world, capacity, range(trials), report)
    tried = pd.concat(choices, ignore_index=True) if choices else pd.DataFrame()
    return pd.DataFrame(rows), tried


def measured(
    traces: Traces,
    policies: Mapping[str, Policy],
    world: World,
    capacity: int,
    trials: range,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """A row for each policy and each of these trials, with the columns of `compared`."""
    workload = traces.workload()
    learned: list[Learned] = []
    policies = dict(policies)
    if LEARNING in policies:
        policies[LEARNING] = Remembers(policies[LEARNING], learned)
    seeds = trial_seeds(trials.stop)[trials.start :]
    draws = (world.draws(workload, seed) for seed in seeds)
    rows = []
    model = world.serving_model
    runs = run_trials(workload, policies, capacity, draws, serving_model=model, report=report)
    for trial in runs:
        row: dict[str, Any] = {"world": world.name, "capacity_cores": capacity}
        row |= {"policy": trial.policy, "trial": trials.start + trial.number}
        row |= summarize(trial.run, published=True)
        row |= {"lost_later": lost_later(trial.run)}
        row |= {f"lost_{n}": lost for n, lost in enumerate(lost_by_block(trial.run))}
        if trial.policy == LEARNING:
            row["learned_error"] = _error(learned, world)
            learned.clear()
        rows.append(row)
    return rows


def _error(learned: Sequence[Learned], world: World) -> float:
    """Median of |learned / true factor - 1| over jobs and later minutes."""
    last = {one.minute: one.belief for one in learned if one.minute >= FIRST_MINUTES}
    errors = [
        np.abs(mean_factor(weight) / world.factor[:, minute - 1] - 1)
        for minute, weight in last.items()
    ]
    return float(np.median(errors)) if errors else np.nan


def training_context(traces: Traces, latency_model: LatencyModel, forecaster: str) -> PolicyContext:
    """The inputs of policies, whose forecaster is fitted to the training days."""
    fitted = forecast.fit(forecaster, traces)
    return PolicyContext(traces.jobs, fitted, latency_model=latency_model, traces=traces)
