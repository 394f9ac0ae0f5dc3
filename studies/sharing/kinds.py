"""Shared replicas that serve batches or several requests at once: a table of docs/sharing.md.

    python -m studies.sharing.kinds [--out data/recorded-sharing] [--trials 2]

The evaluation day of the synthetic workload, whose forecaster is fitted to the days before, under
Faro-Sum with isolated replicas and with two models per replica.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_draws
from faro_lib.metrics.measures import summarize
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces
from faro_lib.workload.replicas import Batched, Concurrent
from faro_lib.workload.synthetic import synthetic
from studies.sharing.world import ISOLATED, LEADER, sharing

REPLICAS = (Batched(4, 0.05, 0.1, 0.05), Concurrent(4, 0.5))
CAPACITIES = (20, 16)


def rows_of(traces: Traces, trials: int) -> Iterator[dict]:
    """The summary of each run, for jobs with one kind of replica."""
    fitted = forecast.fit("auto", traces)
    for name, of_name in ((ISOLATED, traces), (LEADER, sharing(traces, 2))):
        table = measure(of_name.jobs, capacity=max(CAPACITIES))
        context = PolicyContext(of_name.jobs, fitted, latency_model=table, traces=of_name)
        policy, workload = make("Faro-Sum", context), of_name.workload()
        for cores in CAPACITIES:
            draws = trial_draws(workload, trials)
            for number, trial in enumerate(run_trials(workload, {name: policy}, cores, draws)):
                replica = traces.jobs[0].replica
                keys = {"kind": replica.kind, "replica": str(replica), "policy": name}
                yield keys | {"cores": cores, "trial": number} | summarize(trial.run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="data/recorded-sharing")
    parser.add_argument("--trials", type=int, default=2)
    options = parser.parse_args()
    traces = synthetic()
    rows = []
    for replica in REPLICAS:
        jobs = tuple(replace(job, replica=replica) for job in traces.jobs)
        for row in rows_of(replace(traces, jobs=jobs), options.trials):
            rows.append(row)
            print(row["kind"], row["policy"], row["cores"], np.round(row["lost_utility"], 3))
    pd.DataFrame(rows).to_csv(Path(options.out) / "kinds.csv", index=False)


if __name__ == "__main__":
    main()
