"""Policies against each other: the same trials for each, and the tables that come of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.control import PolicyFailed
from faro_lib.metrics.frames import clairvoyant_frame, decisions_frame, minutes_frame, running_by_minute
from faro_lib.metrics.limit import Clairvoyant, clairvoyant, measured_utilities, most_replicas
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext
from faro_lib.queueing import LatencyTable
from faro_lib.simulate import TRIAL_SEEDS, ServingModel, draw, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces, Workload, jobs_array
from faro_lib.workload.jobs import MINUTE_S

BY_MINUTE = ("minutes", "decisions", "running", "clairvoyant")  # tables too long for a CSV
LIMIT = ["capacity_cores", "trial", "lost_utility", "slo_violation_rate", "lost_effective_utility"]


@dataclass(frozen=True, slots=True)
class Tables:
    """What an experiment leaves: the files under results/<workload>/simulate/.

    Attributes
    ----------
    running : replicas by minute; limit : what the clairvoyant loses; clairvoyant : its replicas and utilities by minute.
    """

    summary: pd.DataFrame
    minutes: pd.DataFrame
    decisions: pd.DataFrame
    running: pd.DataFrame
    limit: pd.DataFrame
    clairvoyant: pd.DataFrame


def policy_context(
    traces: Traces, results: str | Path | None = None, report: Callable[[str], None] = print
) -> PolicyContext:
    """What the policies of an experiment are made from; it has seen the training days only.

    From `results` it takes forecast/posterior.npz and queueing/measured.npz where earlier stages left them; without a
    posterior the forecaster is the pooled autoregression, without training days there is none, and without a measured table
    the classes of jobs are measured now.
    """
    results = Path(results) if results else None
    posterior = results / "forecast" / "posterior.npz" if results else None
    measured = results / "queueing" / "measured.npz" if results else None
    forecaster = None
    if posterior and posterior.exists():
        forecaster = forecast.fit("bayes", traces, posterior=posterior)
    elif traces.days:
        forecaster = forecast.fit("ar", traces)
    latency_model = LatencyTable.load(measured) if measured and measured.exists() else measure(traces.jobs)
    report(f"forecaster: {type(forecaster).__name__}; latency: measured")
    return PolicyContext(traces.jobs, forecaster=forecaster, latency_model=latency_model)


def trial_seeds(trials: int) -> tuple[int, ...]:
    """The published five, then 63, 64, ...

    >>> trial_seeds(6)
    (24, 32, 40, 42, 62, 63)
    """
    further = range(TRIAL_SEEDS[-1] + 1, TRIAL_SEEDS[-1] + 1 + max(0, trials - len(TRIAL_SEEDS)))
    return (*TRIAL_SEEDS, *further)[:trials]


def compare(
    workload: Workload,
    policies: Mapping[str, Policy],
    capacity: int,
    trials: int,
    *,
    serving_model: ServingModel = PAPER,
    limit: bool = True,
    report: Callable[[str], None] = print,
) -> Tables:
    """Every policy on the same trials at one cluster size; `report` is told of every run.

    The loop would go on without a policy that raises; an experiment stops with its error, as what follows is no result.
    """
    summary, minutes, decisions, running, limits, best = [], [], [], [], [], []
    for trial, seed in enumerate(trial_seeds(trials)):
        draws = draw(workload, seed, router=serving_model.router)
        for name, policy in policies.items():
            with warnings.catch_warnings():
                warnings.simplefilter("error", PolicyFailed)
                run = simulate(workload, policy, capacity, draws=draws, serving_model=serving_model)
            key = {"policy": name, "capacity_cores": capacity, "trial": trial}
            summary.append(key | summarize(run))
            minutes.append(minutes_frame(run).assign(**key))
            decisions.append(decisions_frame(run).assign(**key))
            running.append(_running(run, workload).assign(**key))
            lost, violated = summary[-1]["lost_utility"], summary[-1]["slo_violation_rate"]
            report(
                f"{name} at {capacity}, trial {trial + 1} of {trials}: lost utility {lost:.3f}, violations {violated:.2%}"
            )
        if limit:
            key = {"capacity_cores": capacity, "trial": trial}
            (found,) = clairvoyants(workload, draws, (capacity,), serving_model=serving_model)
            limits.append(key | found.summary())
            best.append(clairvoyant_frame(found).assign(**key))
    first = ["policy", "capacity_cores", "trial"]
    return Tables(
        pd.DataFrame(summary),
        _in_order(minutes, [*first, "job", "minute"]),
        _in_order(decisions, [*first, "time_s", "job"]),
        _in_order(running, [*first, "job", "minute"]),
        pd.DataFrame(limits, columns=LIMIT),
        _in_order(best, [*first[1:], "job", "minute"]) if best else pd.DataFrame(columns=[*first[1:], "job", "minute"]),
    )


def clairvoyants(workload: Workload, draws, capacities, *, serving_model: ServingModel = PAPER) -> list[Clairvoyant]:
    """What the clairvoyant does on these requests at several cluster sizes (cores)."""
    jobs = workload.jobs
    most = min(most_replicas(jobs, max(capacities)), columns_worth_measuring(workload))
    measured = measured_utilities(workload, draws, most, serving_model)
    return [clairvoyant(*measured, size, jobs) for size in capacities]


def limits_of(
    workload: Workload, draws, capacities, *, serving_model: ServingModel = PAPER, trial: int = 0
) -> list[dict]:
    """The clairvoyant limit of one trial at several cluster sizes (cores): rows with the columns LIMIT."""
    found = clairvoyants(workload, draws, capacities, serving_model=serving_model)
    return [{"capacity_cores": size, "trial": trial} | one.summary() for size, one in zip(capacities, found)]


def summaries(
    workload: Workload,
    policies: Mapping[str, Policy],
    capacity: int,
    trials: int,
    *,
    serving_model: ServingModel = PAPER,
    scv_factor: float = 1.0,
    limit: bool = False,
    report: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`compare` without its minutes: the summary, a row a policy and trial, and the limit of the first trial if wanted.

    Parameters
    ----------
    scv_factor : as in `simulate.draw`.
    """
    rows, limits = [], []
    for trial, seed in enumerate(trial_seeds(trials)):
        draws = draw(workload, seed, router=serving_model.router, scv_factor=scv_factor)
        for name, policy in policies.items():
            run = simulate(workload, policy, capacity, draws=draws, serving_model=serving_model)
            rows.append({"policy": name, "capacity_cores": capacity, "trial": trial} | summarize(run))
            report(f"{name} at {capacity}, trial {trial + 1} of {trials}: lost utility {rows[-1]['lost_utility']:.3f}")
        if limit and trial == 0:
            limits += limits_of(workload, draws, (capacity,), serving_model=serving_model)
    return pd.DataFrame(rows), pd.DataFrame(limits, columns=LIMIT)


def columns_worth_measuring(workload: Workload) -> int:
    """Replicas beyond which no job gains: 1.6 times its peak offered load by the planner's service time, plus two.

    At least what every job must have anyway.
    """
    peak_rps = workload.requests_per_min.max(axis=1) / MINUTE_S
    enough = int(np.ceil((peak_rps * jobs_array(workload.jobs, "service_time_s")).max() * 1.6)) + 2
    return max(enough, int(jobs_array(workload.jobs, "min_replicas").max()))


def _running(run, workload):
    by_minute = running_by_minute(run)
    jobs, minutes = by_minute.shape
    names = [job.name for job in workload.jobs]
    return pd.DataFrame(
        {"job": np.repeat(names, minutes), "minute": np.tile(np.arange(minutes), jobs), "running": by_minute.ravel()}
    )


def _in_order(frames, columns):
    whole = pd.concat(frames, ignore_index=True)
    return whole[columns + [column for column in whole if column not in columns]]


def read_tables(directory: str | Path) -> Tables:
    """The tables that a finished experiment wrote into `directory`."""
    directory = Path(directory)
    minutes, decisions, running, best = (pd.read_parquet(directory / f"{name}.parquet") for name in BY_MINUTE)
    summary, limit = (pd.read_csv(directory / f"{name}.csv") for name in ("summary", "limit"))
    return Tables(summary, minutes, decisions, running, limit, best)


def write_tables(tables: Tables, directory: str | Path) -> None:
    """What `read_tables` reads."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tables.summary.to_csv(directory / "summary.csv", index=False)
    tables.limit.to_csv(directory / "limit.csv", index=False)
    for name in BY_MINUTE:
        getattr(tables, name).to_parquet(directory / f"{name}.parquet", index=False)


def gather(directories: list[str | Path], directory: str | Path) -> None:
    """Join the tables of several experiments (cluster sizes, say) into one set in `directory`."""
    parts = [read_tables(part) for part in directories]
    joined = [pd.concat([getattr(part, field) for part in parts], ignore_index=True) for field in Tables.__slots__]
    write_tables(Tables(*joined), directory)
