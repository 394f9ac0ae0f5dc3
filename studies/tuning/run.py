"""Tuning: compare hyperparameters of Faro on training days.

    python -m studies.tuning.run [--raw data/raw] [--out tuning.csv]

Forecasters are fitted to earlier days. The evaluation day is never used. docs/tuning.md has the
table.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials
from faro_lib.metrics.measures import minute_utility, summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import FALLBACK_MODEL, tuned
from faro_lib.protocol import Policy
from faro_lib.simulate import TRIAL_SEEDS, draw
from faro_lib.simulate.measure import measure
from faro_lib.workload import PUBLISHED, Traces
from faro_lib.workload.tables import load_workload
from studies.ablation.remaining import remaining

DAYS = (9, 10)  # the last training days
PHASES = (0, 2)
# These days have about 0.88 of the load of the evaluation day, whose capacities are 36, 32 and 16.
CAPACITIES = (32, 28, 14)
CHOSEN = "chosen"
CHANGES: dict[str, dict[str, Any]] = {
    "no nowcast": {"nowcast": False},
    "decides 40 s into a minute": {"phase_s": 40.0},
    "decides every second minute": {"interval_s": 120.0},
    "new replicas serve after 1 minute of the horizon": {"cold_start_minutes": 1.0},
    "new replicas serve after 1.5 minutes": {"cold_start_minutes": 1.5},
    "horizon of 5 minutes": {"horizon_minutes": 5},
    "horizon of 8 minutes": {"horizon_minutes": 8},
    "no switching cost": {"switching_cost": 0.0},
    "switching cost 0.02": {"switching_cost": 0.02},
    "switching cost 0.06": {"switching_cost": 0.06},
    "no reactive loop": {"reactive": False},
    "idle cores not moved": {"reserve": False},
    "half of M/M/c": {"latency_model": "half-mmc"},
    "M/G/c by correction": {"latency_model": FALLBACK_MODEL},
}
FAIR_SUM_CHANGES: dict[str, dict[str, Any]] = {
    "switching cost 0.01": {"switching_cost": 0.01},
    "switching cost 0.1": {"switching_cost": 0.1},
    "spread weighed by the number of jobs": {"gamma": None},
    "no deficit weighting": {"deficit_weighting": 0.0},
    "deficit weighting 2": {"deficit_weighting": 2.0},
}


def alternatives(context: PolicyContext, other: PolicyContext) -> dict[str, Policy]:
    """The tuned defaults, variants that differ in one option, and one with another forecaster."""
    policies: dict[str, Policy] = {CHOSEN: tuned(context)}
    for name, change in CHANGES.items():
        policies[name] = tuned(context, **change)
    policies["pooled autoregression"] = tuned(other)
    policies[f"FairSum: {CHOSEN}"] = tuned(context, "FairSum")
    for name, change in FAIR_SUM_CHANGES.items():
        policies[f"FairSum: {name}"] = tuned(context, "FairSum", **change)
    policies[f"Fair: {CHOSEN}"] = tuned(context, "Fair")
    policies["Fair: no deficit weighting"] = tuned(context, "Fair", deficit_weighting=0.0)
    return policies


def measured(
    traces: Traces, policies: Mapping[str, Policy], day: int, phase: int, capacity: int, seed: int
) -> pd.DataFrame:
    """Measures of every policy on one day, phase and capacity, with the worst job's utility."""
    workload = traces.workload(day, phase)
    rows = []
    for trial in run_trials(workload, policies, capacity, [draw(workload, seed)]):
        worst = float(np.nanmean(minute_utility(trial.run), axis=1).min())
        key = {"option": trial.policy, "day": day, "phase": phase, "capacity_cores": capacity}
        rows.append(key | summarize(trial.run) | {"worst_job": worst})
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Means over days and phases of each option and capacity, and the difference from the defaults.

    Differences are paired: runs of the same day, phase and capacity share their requests.

    Returns
    -------
    option, capacity_cores, lost_utility, slo_violation_rate, worst_job, more (lost utility minus
    that of the tuned defaults for the same objective), more_error (its standard error).
    """
    runs = ["day", "phase", "capacity_cores", "prefix"]
    objective = table["option"].str.extract(r"^(Fair\w*: )", expand=False)
    table = table.assign(prefix=objective.fillna(""))
    base = table[table["option"] == table["prefix"] + CHOSEN]
    table = table.merge(base[[*runs, "lost_utility"]], on=runs, suffixes=("", "_chosen"))
    table["more"] = table["lost_utility"] - table["lost_utility_chosen"]
    by = table.groupby(["option", "capacity_cores"], sort=False)
    means = by[["lost_utility", "slo_violation_rate", "worst_job", "more"]].mean()
    return means.assign(more_error=by["more"].sem(ddof=1)).reset_index()


def remaining_of(
    traces: Traces, context: PolicyContext, day: int, phase: int, capacity: int, seed: int
) -> pd.DataFrame:
    """Decomposition of the remaining loss on one day, phase and capacity."""
    workload = traces.workload(day, phase)
    parts = remaining(workload, context, capacity, draw(workload, seed))
    return parts.assign(day=day, phase=phase, capacity_cores=capacity)


def contexts(traces: Traces, posterior: forecast.Posterior) -> tuple[PolicyContext, PolicyContext]:
    """Contexts with the Bayesian forecaster and with the pooled autoregression.

    Both are fitted to the days before DAYS.
    """
    before = traces.until(min(DAYS))
    latency_model = measure(traces.jobs)
    bayes = forecast.fit("bayes", before, posterior=posterior)
    pooled = forecast.fit("ar", before)
    return (
        PolicyContext(traces.jobs, forecaster=bayes, latency_model=latency_model),
        PolicyContext(traces.jobs, forecaster=pooled, latency_model=latency_model),
    )


def fitted(traces: Traces) -> forecast.Posterior:
    """The posterior, fitted to the days before DAYS."""
    from studies import bayes

    before = traces.until(min(DAYS))
    return bayes.posterior_of(bayes.fit_bayes(before), before)


def gathered(runs: Sequence[Future[pd.DataFrame]], out: Path) -> pd.DataFrame:
    """Wait for all runs and write their rows to `out`.

    Until then, finished runs are in out.partial.csv.
    """
    partial = out.with_suffix(f".partial{out.suffix}")
    for done, _ in enumerate(as_completed(runs), 1):
        table = pd.concat([run.result() for run in runs if run.done()], ignore_index=True)
        table.to_csv(partial, index=False)
        print(f"{done} of {len(runs)} days, phases and capacities", file=sys.stderr, flush=True)
    partial.replace(out)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all alternatives on all days, phases and capacities, and print their differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = "folder of the published traces (`make data`)"
    parser.add_argument("--raw", default="data/raw", help=folder)
    parser.add_argument("--out", type=Path, default=Path("tuning.csv"))
    parser.add_argument("--seed", type=int, default=TRIAL_SEEDS[0])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    traces = load_workload(PUBLISHED, raw=options.raw)
    context, other = contexts(traces, fitted(traces))
    policies = alternatives(context, other)
    cases = list(product(DAYS, PHASES, CAPACITIES))
    with ProcessPoolExecutor(options.workers) as pool:
        runs = [pool.submit(measured, traces, policies, *case, options.seed) for case in cases]
        parts = [pool.submit(remaining_of, traces, context, *case, options.seed) for case in cases]
        table = gathered(runs, options.out)
        losses = pd.concat([part.result() for part in parts], ignore_index=True)
    print(differences(table).round(4).to_string(index=False))
    by = losses.groupby(["part", "capacity_cores"], sort=False)
    print(by["lost_utility"].mean().unstack().round(3).to_string())


if __name__ == "__main__":
    main()
