"""Services that are slower because they share replicas: a table of docs/sharing.md.

    python -m studies.sharing.slower [--raw data/raw] [--out data/recorded-sharing/slower.csv]
    python -m studies.sharing.slower --day 10 --out day-10.csv   # a training day

The service times of all services are so many times as long as stated. Faro-Sum with two models per
replica believes what is stated, learns, or knows the truth; with isolated replicas, in the same
world, it learns. A run that is in the table is not repeated.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_seeds
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.policies.learning import Learner
from faro_lib.simulate.measure import measure
from faro_lib.workload import PUBLISHED, Traces
from faro_lib.workload.tables import load_workload
from studies.misspecification.world import Known, World, lost_later
from studies.sharing.run import CAPACITIES, TRIALS
from studies.sharing.world import sharing
from studies.tables.frames import write_csv

BELIEVES, LEARNS, KNOWS, ISOLATED = "believes", "learns", "knows", "isolated, learns"
POLICIES = (BELIEVES, LEARNS, KNOWS, ISOLATED)
MODELS = 2
FACTORS = (1.0, 1.1, 1.3)
OUT = "data/recorded-sharing/slower.csv"


class Cell(NamedTuple):
    """One run; `slower` is the factor between true and stated service times."""

    cores: int
    slower: float
    policy: str
    trial: int

    @property
    def tells(self) -> bool:
        """Whether no other run is the same one: as stated, who believes knows."""
        return self.slower != 1 or self.policy in (BELIEVES, LEARNS)


class Contexts:
    """What policies need, fitted and measured once for shared and for isolated replicas."""

    def __init__(self, traces: Traces, forecaster: str):
        fitted = forecast.fit(forecaster, traces)
        self.traces = {False: traces, True: sharing(traces, MODELS)}
        self.context = {
            shared: PolicyContext(
                of.jobs, fitted, measure(of.jobs, capacity=max(CAPACITIES)), traces=of
            )
            for shared, of in self.traces.items()
        }


def policy_of(cell: Cell, context: PolicyContext, world: World) -> Policy:
    if cell.policy == BELIEVES:
        return tuned(context)
    return tuned(context, learner=Known(of=world.factor) if cell.policy == KNOWS else Learner())


def results(cells: Sequence[Cell], traces: Traces, forecaster: str) -> Iterator[dict]:
    """The row of each run: its cell, its loss, and its loss after the first 30 minutes."""
    contexts = Contexts(traces, forecaster)
    for cell in cells:
        shared = cell.policy != ISOLATED
        workload = contexts.traces[shared].workload()
        factor = np.full((len(workload.jobs), workload.minutes), cell.slower)
        world = World(f"{cell.slower:g} times slower", factor)
        policies = {cell.policy: policy_of(cell, contexts.context[shared], world)}
        # No platform measures how long the CPU is busy.
        draws = replace(world.draws(workload, trial_seeds(TRIALS)[cell.trial]), busy_s=None)
        (trial,) = run_trials(workload, policies, cell.cores, [draws])
        found = summarize(trial.run, published=True)
        losses = {"loss": found["lost_utility_published"], "loss_later": lost_later(trial.run)}
        yield cell._asdict() | losses


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", default="data/raw")
    parser.add_argument("--out", default=OUT, type=Path)
    parser.add_argument("--day", type=int, help="a training day; by default the evaluation day")
    parser.add_argument("--cores", nargs="+", type=int, default=CAPACITIES)
    parser.add_argument("--slower", nargs="+", type=float, default=FACTORS)
    parser.add_argument("--policy", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--forecaster", default="auto")
    options = parser.parse_args(arguments)
    traces = load_workload(PUBLISHED, raw=options.raw)
    if options.day:
        traces = traces.until(options.day)
    rows = pd.read_csv(options.out).to_dict("records") if options.out.exists() else []
    done = {Cell(*(row[key] for key in Cell._fields)) for row in rows}
    every = product(range(options.trials), options.cores, options.slower, options.policy)
    cells = [Cell(cores, slower, policy, trial) for trial, cores, slower, policy in every]
    wanted = [cell for cell in cells if cell not in done and cell.tells]
    for row in results(wanted, traces, options.forecaster):
        rows.append(row)
        write_csv(pd.DataFrame(rows), options.out)
        print(row, flush=True)


if __name__ == "__main__":
    main()
