"""Idle cores as a reserve: Faro-Sum with and without `reserve`, on recorded and generated days.

    python -m studies.tuning.reserve [--raw data/raw]

The recorded days are training days. Forecasters are fitted to the days before each day. Every run
begins with an equal share of the cores, and both policies serve the same requests. The seeds of the
generated worlds are used nowhere else. docs/tuning.md sums it up.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_draws
from faro_lib.metrics.measures import summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.simulate.measure import measure
from faro_lib.workload import PUBLISHED, SYNTHETIC, Traces
from faro_lib.workload.shares import fair_share
from faro_lib.workload.tables import load_workload

TRIALS = 2
CHANGES = ("flash", "double", "idle")
AZURE = "data/azure-2019.csv.gz", "data/azure-2019-jobs.csv"


def cases(raw: str) -> Iterator[tuple[str, Traces, str, tuple[int, ...]]]:
    """(name, traces, day, capacities in cores) of each case.

    The day is judged, the days before it are for training.
    """
    published = load_workload(PUBLISHED, raw=raw)
    azure = load_workload(*AZURE)
    for day in (9, 10):
        yield "published", published.until(day), str(day), (28, 36, 44, 60)
    for day in (9, 10, 11):
        yield "azure-2019", azure.until(day), str(day), (18, 24, 36)
    for seed, change in enumerate(CHANGES, 31):
        world = load_workload(SYNTHETIC, synthetic={"seed": seed, "change": change})
        yield change, world, f"seed {seed}", (28, 36, 44)


def paired(name: str, traces: Traces, day: str, capacities: Sequence[int]) -> pd.DataFrame:
    """Lost utility and SLO violation rate: a row per capacity and trial, columns by policy."""
    context = PolicyContext(traces.jobs, forecast.fit("auto", traces), measure(traces.jobs))
    policies = {"without": tuned(context, reserve=False), "with": tuned(context)}
    workload = traces.workload()
    rows = []
    for capacity in capacities:
        draws = trial_draws(workload, TRIALS)
        initial = fair_share(workload.jobs, capacity)
        for trial in run_trials(workload, policies, capacity, draws, initial=initial):
            measures = summarize(trial.run)
            target = np.asarray(trial.run.decisions.target)  # (ticks, jobs)
            key = {"workload": name, "day": day, "capacity_cores": capacity, "trial": trial.number}
            rows.append(
                key
                | {
                    "policy": trial.policy,
                    "lost_utility": measures["lost_utility"],
                    "late": measures["slo_violation_rate"],
                    "moves": np.abs(np.diff(target, axis=0)).sum(),
                }
            )
    keys = ["workload", "day", "capacity_cores", "trial"]
    values = ["lost_utility", "late", "moves"]
    return pd.DataFrame(rows).pivot(index=keys, columns="policy", values=values)


def main() -> None:
    """Print means over days and trials, and the paired difference with its standard error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = "folder of the published traces (`make data`)"
    parser.add_argument("--raw", default="data/raw", help=folder)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers) as pool:
        runs = [pool.submit(paired, *case) for case in cases(options.raw)]
        table = pd.concat([run.result() for run in runs])
    by = ["workload", "capacity_cores"]
    difference = table["lost_utility", "with"] - table["lost_utility", "without"]
    difference = difference.groupby(by, sort=False)
    means = table.groupby(by, sort=False).mean()
    means.columns = [f"{measure} {policy}" for measure, policy in means.columns]
    print(means.assign(difference=difference.mean(), error=difference.sem()).round(4).to_string())


if __name__ == "__main__":
    main()
