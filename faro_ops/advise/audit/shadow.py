"""Score the plans of a dry run: forecasts, predicted latencies, and utility lost in simulations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib.experiments.trials import run_trials, trial_seeds
from faro_lib.metrics.measures import minute_utility
from faro_lib.metrics.paired import unit_interval
from faro_lib.protocol import PLAN_ATTEMPTS, PLANNED, Observation, Plan
from faro_lib.simulate import LIVE, ServingModel
from faro_lib.simulate.measure import measure
from faro_lib.utility import predicted_latency, relaxed_utility
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.advise.recommend.sizing import uniform_draws
from faro_ops.journal.reading import arrivals
from faro_ops.journal.ticks import Header, Tick
from faro_ops.protocol import live_plan

BLOCK_MINUTES = 30
TRIALS = 3
MIN_MINUTES = 4 * BLOCK_MINUTES  # fewer minutes have too few blocks for an interval


@dataclass(frozen=True, slots=True)
class Recorded:
    """A policy that repeats recorded replica counts."""

    replicas: np.ndarray  # (ticks, jobs)
    name: str
    tick_s: float = MINUTE_S

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return self.replicas[0]

    def start(self, jobs: tuple[Job, ...]) -> None:
        return None

    def decide(self, state: None, observation: Observation) -> tuple[None, Plan]:
        target = self.replicas[min(round(observation.now_s / self.tick_s), len(self.replicas) - 1)]
        return state, Plan(target, np.zeros(len(target)), (PLANNED,) * len(target), PLAN_ATTEMPTS)


def plan_scores(
    header: Header, ticks: list[Tick], serving_model: ServingModel = LIVE
) -> list[dict[str, Any]]:
    """Score the plans of a dry run in its complete minutes.

    Return one mapping per job, then one for all jobs together. Raises ValueError for fewer than
    MIN_MINUTES minutes. Unknown scores are NaN. The keys of a mapping are `job` and:
    coverage : share of plans whose 80 % prediction interval contains the request rate of the next
        minute.
    latency_ratio : median of observed / predicted tail latency, with the replicas that ran.
    lost_observed : utility lost per minute, computed from the observed latencies.
    lost_ran, lost_planned : utility lost per minute in simulations of the replicas that ran and of
        the planned ones.
    difference, low, high : lost_planned - lost_ran and its 95 % interval, whose units are
        half-hour blocks.
    """
    jobs = header.jobs
    steps = [one.step for one in ticks]
    # The first tick of each minute.
    by_minute = {step.observation.minute: step for step in reversed(steps)}
    minutes = range(min(by_minute) + 1, max(by_minute))
    if len(minutes) < MIN_MINUTES:
        raise ValueError(f"{len(minutes)} minutes of plans; a score needs at least {MIN_MINUTES}")
    planning = [step for step in steps if step.plan.forecast_rps is not None]
    if not planning or planning[0].observation.minute >= minutes[0]:
        raise ValueError(
            "the policy of this journal makes no forecasts, or its first plan is missing"
        )
    if live_plan(planning[0].plan).floor is not None:
        raise ValueError(
            "the plans of this journal are bounds of autoscalers; a score needs planned replicas"
        )

    # `arrivals` may lack the first minutes.
    padding = np.full((len(jobs), len(minutes)), np.nan)
    counts = np.hstack([padding, arrivals(header, ticks)])[:, -len(minutes) :]
    # The last plan before each minute.
    of_plan = [[p for p in planning if p.observation.minute < m][-1] for m in minutes]
    planned = np.array([step.target for step in of_plan])  # (minutes, jobs)
    ran = np.array([by_minute.get(m, step).observation.target for m, step in zip(minutes, of_plan)])
    recorded = Workload(unbounded(jobs), np.rint(np.nan_to_num(counts)).astype(int))
    lost = _simulated(recorded, ran, planned, serving_model)
    ends = [by_minute[m + 1] for m in minutes if m + 1 in by_minute]
    observed, ratio = _latencies(jobs, ends, serving_model)
    inside = _coverage(planning, counts, minutes[0])

    rows = []
    of_job = {job.name: slice(n, n + 1) for n, job in enumerate(jobs)}
    for name, index in [*of_job.items(), ("all", slice(None))]:
        ran_lost, planned_lost = np.nansum(lost[:, :, index], axis=2)  # (trials, minutes) each
        difference, low, high = _mean_and_interval(planned_lost - ran_lost)
        scores = {
            "coverage": np.nanmean(inside[index]),
            "latency_ratio": np.nanmedian(ratio[index]),
            "lost_observed": np.nansum(observed[index]) / observed.shape[1],
            "lost_ran": ran_lost.mean(),
            "lost_planned": planned_lost.mean(),
            "difference": difference,
            "low": low,
            "high": high,
        }
        rounded = {key: round(float(value), 4) for key, value in scores.items()}
        rows.append({"job": name} | rounded)
    return rows


def _mean_and_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of `values` (trials, minutes) and its 95 % interval from blocks."""
    blocks = [np.array_split(trial, values.shape[1] // BLOCK_MINUTES) for trial in values]
    sums = np.array([[[part.sum() for part in trial] for trial in blocks]])
    lengths = np.array([[[len(part) for part in trial] for trial in blocks]])
    return unit_interval(sums, lengths)


def unbounded(jobs: Sequence[Job], **changes: Any) -> tuple[Job, ...]:
    """Copy the jobs with `changes`, and without the replica bounds and quotas.

    Recorded replicas may violate these.
    """
    return tuple(
        replace(job, min_replicas=0, max_replicas=10**6, tenant_quota=None, **changes)
        for job in jobs
    )


def ample_capacity(jobs: Sequence[Job], replicas: np.ndarray) -> float:
    """A capacity in cores that never limits `replicas` (minutes, jobs).

    Removed pods may still hold cores.
    """
    cores = arrays_of(tuple(jobs)).cores
    return float(2 * np.ceil((replicas @ cores).max()) + cores.sum() + 1)


def _simulated(
    workload: Workload, ran: np.ndarray, planned: np.ndarray, serving_model: ServingModel
) -> np.ndarray:
    """Simulate replicas `ran` and `planned`, (minutes, jobs).

    Return their lost utility, (2, trials, jobs, minutes).
    """
    capacity = ample_capacity(workload.jobs, np.concatenate([ran, planned]))
    policies = {"ran": Recorded(ran, "ran"), "planned": Recorded(planned, "planned")}
    draws = (uniform_draws(workload, seed, serving_model) for seed in trial_seeds(TRIALS))
    trials = run_trials(
        workload, policies, capacity, draws, serving_model=serving_model, initial=ran[0]
    )
    # In the order ran, planned, ran, ...
    lost = np.array([1 - minute_utility(trial.run)[:, :-1] for trial in trials])
    return np.array([lost[::2], lost[1::2]])


def _latencies(
    jobs: tuple[Job, ...], steps: list, serving_model: ServingModel
) -> tuple[np.ndarray, np.ndarray]:
    """Lost utility, and observed divided by predicted latency, in the minute before each step.

    Both are arrays (jobs, steps).
    """
    model = measure(jobs, serving_model=serving_model)
    slo_s = arrays_of(jobs).slo_s[:, None]  # (jobs, 1)
    observations = [step.observation for step in steps]
    tail_s = np.array([one.tail_latency_s for one in observations]).T
    rates_rps = np.array([one.arrivals_per_min[:, -1] for one in observations]).T / MINUTE_S
    predicted = [
        predicted_latency(jobs, np.nan_to_num(rates), one.running, latency_model=model)
        for rates, one in zip(rates_rps.T, observations)
    ]
    predicted_s = np.array(predicted).T
    loss = 1 - relaxed_utility(np.nan_to_num(tail_s, nan=0.0, posinf=np.inf), slo_s)
    comparable = (rates_rps > 0) & np.isfinite(tail_s) & np.isfinite(predicted_s)
    ratio = tail_s / np.where(comparable, predicted_s, 1.0)
    return loss, np.where(comparable, ratio, np.nan)


def _coverage(planning: list, counts: np.ndarray, first: int) -> np.ndarray:
    """Whether a plan's 80 % interval contains the rate of the next minute, (jobs, plans).

    1 = yes, 0 = no, NaN = unknown.
    """
    inside = []
    for step in planning:
        deciles = step.plan.next_minute_deciles_rps  # (jobs, deciles)
        index = step.observation.minute + 1 - first
        if deciles is None or not 0 <= index < counts.shape[1]:
            continue
        rate_rps = counts[:, index] / MINUTE_S
        contains = (deciles[:, 0] <= rate_rps) & (rate_rps <= deciles[:, -1])
        unknown = np.isnan(rate_rps) | np.isnan(deciles[:, 0])
        inside.append(np.where(unknown, np.nan, contains))
    if not inside:
        return np.full((len(counts), 1), np.nan)
    return np.array(inside, float).T
