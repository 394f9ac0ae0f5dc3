"""Bursts: which process has the dispersion of a log, and what a planner loses that ignores them.

The log is the Azure LLM inference trace 2023 (exact times of an hour of two services). A planner
either assumes requests at random times of their minute, or knows the dispersion that was fitted to
an earlier part of the log. Both decide about the same requests.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from faro_lib import forecast
from faro_lib.experiments.trials import Report, run_trials, trial_seeds
from faro_lib.forecast import Forecaster
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.protocol import Assuming, Observation, Plan, hold
from faro_lib.simulate import ServingModel, draw
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.bursts import HOUR_S, burst_arrivals, dispersion, fit_hours
from faro_lib.workload.jobs import MINUTE_S
from studies.forecast.oracle import oracle

AZURE = ("code", "conv")
WINDOWS_S = (0.1, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
GAMMA, WEIBULL, BURSTS = "gamma gaps", "Weibull gaps", "bursts"
USUAL, COUNTS_KNOWN = "usual", "counts known"
AT_RANDOM, FITTED, TRUE = "assumes random times", "knows the fitted bursts", "knows the true bursts"
LIVE = ServingModel("least-outstanding", max_ongoing_requests=50)
# A request of the log's services takes one second on average, and times vary as they do where the
# lengths of prompts and outputs do. The SLO is four service times, as in the paper.
SERVICE: dict[str, Any] = {"service_time_s": 1.0, "service_scv": 0.5, "slo_s": 4.0}
MEASURED_CORES = 24  # latencies are measured up to this many replicas
COPIES = 5  # jobs per service of the log, each with another rotation of its minutes


def read_azure(folder: str | Path) -> dict[str, np.ndarray]:
    """Arrival times in s from the first minute on, (requests,), of whole minutes, by service."""
    found = {}
    for name, path in azure_files(folder).items():
        stamps = pd.to_datetime(pd.read_csv(path)["TIMESTAMP"], format="ISO8601")
        time_s = stamps.astype("datetime64[ns]").astype("int64").to_numpy() / 1e9
        time_s -= time_s[0] // MINUTE_S * MINUTE_S
        found[name] = time_s[time_s < time_s[-1] // MINUTE_S * MINUTE_S]
    return found


def azure_files(folder: str | Path) -> dict[str, Path]:
    """The file of each service: as published, or `code.csv.gz`; FileNotFoundError for none."""
    found = {}
    for name in AZURE:
        names = f"AzureLLMInferenceTrace_{name}.csv", f"{name}.csv.gz"
        paths = [Path(folder) / one for one in names if (Path(folder) / one).exists()]
        if not paths:
            hint = "python -m faro_pipeline fetch azure-llm-2023"
            raise FileNotFoundError(f"{folder}/{names[0]}: no such file; {hint}")
        found[name] = paths[0]
    return found


def minutes_of(time_s: np.ndarray) -> int:
    """The number of minutes from 0 to the last time."""
    return int(time_s[-1] // MINUTE_S) + 1


def counts_of(time_s: np.ndarray, length_s: float, minutes: int) -> np.ndarray:
    """The counts in windows of `length_s`, (windows,)."""
    windows = round(minutes * MINUTE_S / length_s)
    return np.bincount((time_s / length_s).astype(int), minlength=windows)[:windows]


# --- which process has the dispersion of the log --------------------------------------------------


def renewal_fits(time_s: np.ndarray) -> dict[str, tuple[Callable, float]]:
    """Family -> (function of (generator, number of gaps) with mean gap 1, log likelihood)."""
    gaps = np.diff(time_s)
    gaps = gaps[gaps > 0]
    shape, _, scale = stats.gamma.fit(gaps, floc=0)
    k, _, width = stats.weibull_min.fit(gaps, floc=0)
    mean = stats.weibull_min.mean(k)
    return {
        GAMMA: (
            lambda rng, n: rng.gamma(shape, 1 / shape, n),
            float(stats.gamma.logpdf(gaps, shape, 0, scale).sum()),
        ),
        WEIBULL: (
            lambda rng, n: rng.weibull(k, n) / mean,
            float(stats.weibull_min.logpdf(gaps, k, 0, width).sum()),
        ),
    }


def in_minutes(counts: np.ndarray, gaps: Callable, rng: np.random.Generator) -> np.ndarray:
    """Arrival times with `counts` (minutes,): n + 1 gaps fill each minute."""
    parts = []
    for minute, n in enumerate(counts.tolist()):
        until = np.cumsum(gaps(rng, n + 1))
        parts.append((minute + until[:-1] / until[-1]) * MINUTE_S)
    return np.concatenate(parts)


def without_minutes(time_s: np.ndarray, gaps: Callable, rng: np.random.Generator) -> np.ndarray:
    """A renewal process with the mean rate of the log and its number of minutes."""
    end_s = minutes_of(time_s) * MINUTE_S
    times = np.cumsum(gaps(rng, 2 * len(time_s))) * end_s / len(time_s)
    return times[times < end_s]


def agreement(logs: Mapping[str, np.ndarray], seeds: int = 20) -> pd.DataFrame:
    """The index of dispersion of the counts in windows of a log, and of processes fitted to it.

    Columns service, process, log_likelihood (of the gaps), window_s, log (the index of the log),
    found (mean over `seeds`), std and error (found / log - 1). Processes with "in minutes" have the
    log's counts per minute.
    """
    rows = []
    for service, time_s in logs.items():
        minutes = minutes_of(time_s)
        counts = counts_of(time_s, MINUTE_S, minutes)
        hours = int(np.ceil(minutes * MINUTE_S / HOUR_S))
        of_minute = np.repeat(fit_hours(time_s, hours)[0], 60, axis=0)[:minutes]
        processes: dict[str, tuple[Callable, float]] = {
            BURSTS: (lambda rng, c=counts, d=of_minute: burst_arrivals(c, d, rng), np.nan)
        }
        for family, (gaps, likelihood) in renewal_fits(time_s).items():
            processes[family] = (
                lambda rng, t=time_s, g=gaps: without_minutes(t, g, rng),
                likelihood,
            )
            inside = f"{family}, in minutes"
            processes[inside] = (lambda rng, c=counts, g=gaps: in_minutes(c, g, rng), likelihood)
        for process, (sample, likelihood) in processes.items():
            drawn = [sample(np.random.default_rng([seed, 8])) for seed in range(seeds)]
            for window_s in WINDOWS_S:
                log = _index(time_s, window_s, minutes)
                found = [_index(times, window_s, minutes) for times in drawn]
                row = {"service": service, "process": process, "log_likelihood": likelihood}
                row |= {"window_s": window_s, "log": log, "found": np.mean(found)}
                rows.append(row | {"std": np.std(found), "error": np.mean(found) / log - 1})
    return pd.DataFrame(rows)


def _index(time_s: np.ndarray, window_s: float, minutes: int) -> float:
    counts = counts_of(time_s, window_s, minutes)
    return float(dispersion(counts[None], len(counts))[0])


# --- planners in worlds with bursts ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BurstyWorld:
    """A workload whose requests come in bursts, and what planners may know about its jobs."""

    name: str
    capacities: tuple[int, ...]
    jobs: tuple[Job, ...]  # at random times
    planners: Mapping[str, tuple[Job, ...]]  # name -> the jobs that the planner assumes
    history: Traces | None  # training days of the forecaster; None: it is untrained
    # The requests of a trial with this seed, or with the same counts at random times.
    requests: Callable[[int, bool], Workload]


def replayed(logs: Mapping[str, np.ndarray], capacities: tuple[int, ...]) -> BurstyWorld:
    """The second half of each log, replayed exactly by COPIES jobs; bursts are fitted to the first.

    A trial's seed rotates the minutes of each job by another number.
    """
    half = min(map(minutes_of, logs.values())) // 2
    first = {name: time_s[time_s < half * MINUTE_S] for name, time_s in logs.items()}
    later = {
        name: time_s[(time_s >= half * MINUTE_S) & (time_s < 2 * half * MINUTE_S)] - half * MINUTE_S
        for name, time_s in logs.items()
    }
    jobs = tuple(Job(f"{name}-{n}", model="log", **SERVICE) for name in logs for n in range(COPIES))
    of_log = [name for name in logs for _ in range(COPIES)]
    index = {name: fit_hours(time_s, 1)[0][0].round(2) for name, time_s in first.items()}
    knowing = tuple(job.with_dispersion(index[name]) for job, name in zip(jobs, of_log))

    def requests(seed: int, at_random: bool) -> Workload:
        rng = np.random.default_rng([seed, 9])
        times = []
        for name in of_log:
            shift_s = int(rng.integers(half)) * MINUTE_S
            times.append(np.sort((later[name] + shift_s) % (half * MINUTE_S)))
        counts = [counts_of(time_s, MINUTE_S, half) for time_s in times]
        return Workload(jobs, np.array(counts), () if at_random else tuple(times))

    planners = {AT_RANDOM: jobs, FITTED: knowing}
    return BurstyWorld("azure-llm-2023, exact times", capacities, jobs, planners, None, requests)


def generated(
    name: str,
    traces: Traces,
    minutes: int,
    capacities: tuple[int, ...],
    arrivals: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    true: Sequence[float] | None = None,
) -> BurstyWorld:
    """Every other job of the evaluation day's first `minutes` has bursts, drawn by `arrivals`.

    One process for all of them is fitted to the last training day's. `true` are their true indices
    of dispersion, if the process has them.
    """
    hours = -(-traces.train.shape[-1] * int(MINUTE_S) // int(HOUR_S))
    jobs = traces.jobs
    bursty = np.arange(len(jobs)) % 2 == 0
    logs = [
        arrivals(traces.train[-1, 0, n], np.random.default_rng([n, 10]))
        for n in np.flatnonzero(bursty).tolist()
    ]
    index = np.mean([fit_hours(log, hours)[1] for log in logs], axis=0).round(2)
    counts = traces.evaluation[0, :, :minutes]

    def requests(seed: int, at_random: bool) -> Workload:
        rng = np.random.default_rng([seed, 11])
        times = tuple(
            arrivals(of_job, rng) if of_bursts else burst_arrivals(of_job, (1.0, 1.0, 1.0), rng)
            for of_job, of_bursts in zip(counts, bursty & (not at_random))
        )
        return Workload(jobs, counts, times)

    def knowing(of_bursts: Sequence[float]) -> tuple[Job, ...]:
        return tuple(
            job.with_dispersion(of_bursts) if one else job for job, one in zip(jobs, bursty)
        )

    planners = {AT_RANDOM: jobs, FITTED: knowing(index)}
    if true:
        planners[TRUE] = knowing(true)
    return BurstyWorld(name, capacities, jobs, planners, traces, requests)


@dataclass(frozen=True, slots=True)
class AfterAMinute(Assuming):
    """A policy that changes nothing in the first minute: an untrained forecaster needs a count."""

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        if observation.minute == 0:
            return state, hold(observation)
        return self.policy.decide(state, observation)


def planned(world: BurstyWorld, trials: int, report: Report = print) -> Iterator[dict]:
    """A row for each forecast, planner, capacity, trial, and whether the requests come in bursts.

    The forecast is the usual one, or the counts themselves (COUNTS_KNOWN), which leaves only the
    times within the minute unknown.
    """
    every = dict.fromkeys(job for jobs in world.planners.values() for job in jobs)
    unique = tuple(replace(job, name=str(n)) for n, job in enumerate(every))
    table = measure(unique, capacity=MEASURED_CORES, requests=10_000, serving_model=LIVE)
    if world.history is None:
        no_days = np.zeros((0, 1, len(world.jobs), 60), int)
        traces = Traces(world.jobs, no_days, np.zeros((1, len(world.jobs), 60), int))
    else:
        traces = world.history
    usual = forecast.fit("auto", traces)

    def planners(forecaster: Forecaster) -> dict[str, Policy]:
        return {
            name: AfterAMinute(
                tuned(PolicyContext(jobs, forecaster, latency_model=table)), jobs, name
            )
            for name, jobs in world.planners.items()
        }

    for capacity, at_random in product(world.capacities, (False, True)):
        for number, seed in enumerate(trial_seeds(trials)):
            workload = world.requests(seed, at_random)
            draws = [draw(workload, seed, router=LIVE.router)]
            for name, forecaster in ((USUAL, usual), (COUNTS_KNOWN, oracle(workload))):
                policies = planners(forecaster)
                for trial in run_trials(workload, policies, capacity, draws, serving_model=LIVE):
                    measures = summarize(trial.run)
                    row = {"world": world.name, "capacity_cores": capacity, "forecast": name}
                    row |= {"bursts": not at_random, "planner": trial.policy, "trial": number}
                    row |= {key: measures[key] for key in ("lost_utility", "slo_violation_rate")}
                    yield row
        report(f"{world.name}, {capacity} cores, {'random' if at_random else 'bursts'}")
