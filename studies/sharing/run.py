"""Replicas that several jobs share, on the published traces: the tables of docs/sharing.md.

    python -m studies.sharing.run [--raw data/raw] [--out data/recorded-sharing] [--part faro]

Parts: faro (late binding), early (early binding), rivals, burst, mixed. The evaluation day is
simulated; forecasters are fitted to the days before. A part writes one CSV, and a run that is in it
is not repeated.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_seeds
from faro_lib.metrics.measures import minute_utility, summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.simulate import ServingModel, draw
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.measure import measure
from faro_lib.workload import PUBLISHED, Job, Traces
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.service import true_busy_s
from faro_lib.workload.tables import load_workload
from studies.sharing.routers import ROUTERS
from studies.sharing.world import (
    EVERYWHERE,
    ISOLATED,
    LEADER,
    LEAST_RECENT,
    PLACED_ONCE,
    policies_of,
    sharing,
)

CAPACITIES = (36, 32, 28, 24, 20, 16)
TRIALS = 5
BURST, BURST_MINUTES = 3, range(120, 240)  # factor on the first job's requests, and when
SHORT_S, SHORT_SLO_S = 0.018, 0.086  # every other job of the mixed pool
ERLANGS = 14.5  # load of the mixed pool


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a policy with a number of models per replica on a capacity."""

    part: str
    policy: str
    models: int
    router: str
    cores: int
    trial: int


def cells(part: str, trials: range) -> Iterator[Cell]:
    """The runs of a part."""
    if part == "faro":
        for trial, cores in product(trials, CAPACITIES):
            yield Cell(part, ISOLATED, 1, "late", cores, trial)
            for models in (2, 3):
                yield Cell(part, LEADER, models, "late", cores, trial)
    elif part == "early":
        for trial, cores in product(trials, CAPACITIES[:4]):
            yield Cell(part, LEADER, 3, "early", cores, trial)
    elif part == "rivals":
        for trial, cores in product(trials[:2], CAPACITIES):
            yield Cell(part, PLACED_ONCE, 2, "late", cores, trial)
            yield Cell(part, LEAST_RECENT, 2, "lru", cores, trial)
            yield Cell(part, EVERYWHERE, 10, "late", cores, trial)
    elif part == "burst":
        for models, trial in product((1, 3), trials[:2]):
            router = "late"
            yield Cell(part, ISOLATED if models == 1 else LEADER, models, router, 32, trial)
    else:
        for (cores, models), trial in product([(24, 2), (24, 3), (22, 3), (22, 10)], trials[:2]):
            yield Cell(part, PLACED_ONCE, models, "late", cores, trial)


def workload_of(part: str, traces: Traces) -> Traces:
    """The traces of a part: with a burst of the first job, or with short and long services."""
    if part == "burst":
        evaluation = traces.evaluation.copy()
        evaluation[:, 0, list(BURST_MINUTES)] *= BURST
        return replace(traces, evaluation=evaluation)
    if part == "mixed":
        return short_and_long(traces)
    return traces


def short_and_long(traces: Traces) -> Traces:
    """Ten jobs with the same constant load; every other one has a short service time and SLO."""
    jobs = [
        Job(job.name)
        if index % 2
        else Job(job.name, SHORT_SLO_S, service_time_s=SHORT_S, service_scv=0.2, model="short")
        for index, job in enumerate(traces.jobs)
    ]
    per_min = [ERLANGS / len(jobs) / true_busy_s(job) * MINUTE_S for job in jobs]
    evaluation = np.tile(np.rint(per_min)[:, None], (1, 60))
    return Traces(tuple(jobs), np.stack([evaluation[None]] * 2), evaluation[None])


class Policies:
    """Policies by number of models and capacity; what they need is fitted and measured once."""

    def __init__(self, traces: Traces, forecaster: str):
        self.traces = traces
        self.fitted = forecast.fit(forecaster, traces)
        self.tables: dict[int, PolicyContext] = {}

    def of(self, cell: Cell) -> tuple[Traces, Policy]:
        traces = self.traces if cell.models == 1 else sharing(self.traces, cell.models)
        if cell.models not in self.tables:
            table = measure(traces.jobs, capacity=max(CAPACITIES))
            self.tables[cell.models] = PolicyContext(
                traces.jobs, self.fitted, latency_model=table, traces=traces
            )
        context = self.tables[cell.models]
        if cell.policy == ISOLATED:
            return traces, make("Faro-Sum", context)
        for model, policies in policies_of(traces, context, cell.cores, cell.models):
            if model.pool_router.name == cell.router and cell.policy in policies:
                return traces, policies[cell.policy]
        raise ValueError(f"{cell.policy} does not exist with {cell.models} models")


def results(part: str, wanted: Iterable[Cell], traces: Traces, forecaster: str) -> Iterator[dict]:
    """The summary of each run, with the lost utility of each job."""
    policies = Policies(workload_of(part, traces), forecaster)
    for cell in wanted:
        of_cell, policy = policies.of(cell)
        workload = of_cell.workload()
        # The paper's router, one server per job, is too slow for the short services.
        usual = ServingModel("least-outstanding") if part == "mixed" else PAPER
        model = replace(usual, pool_router=ROUTERS[cell.router])
        draws = draw(workload, trial_seeds(TRIALS)[cell.trial], router=model.router)
        (trial,) = run_trials(
            workload, {cell.policy: policy}, cell.cores, [draws], serving_model=model
        )
        lost = np.nansum(1 - minute_utility(trial.run), axis=1) / workload.minutes
        by_job = {f"lost_{job.name}": value for job, value in zip(workload.jobs, lost)}
        keys = {name: getattr(cell, name) for name in Cell.__dataclass_fields__}
        yield keys | summarize(trial.run, published=True) | by_job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", default="data/raw")
    parser.add_argument("--out", default="data/recorded-sharing")
    parser.add_argument("--part", nargs="+", default=["faro", "early", "rivals", "burst", "mixed"])
    parser.add_argument("--forecaster", default="auto")
    parser.add_argument("--trials", type=int, default=TRIALS)
    options = parser.parse_args()
    traces = load_workload(PUBLISHED, raw=options.raw)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    for part in options.part:
        path = Path(options.out) / f"{part}.csv"
        rows = pd.read_csv(path).to_dict("records") if path.exists() else []
        keys = list(Cell.__dataclass_fields__)
        done = {tuple(row[key] for key in keys) for row in rows}
        every = cells(part, range(options.trials))
        wanted = [one for one in every if tuple(getattr(one, k) for k in keys) not in done]
        for row in results(part, wanted, traces, options.forecaster):
            rows.append(row)
            pd.DataFrame(rows).to_csv(path, index=False)
            print({key: row[key] for key in [*keys, "lost_utility_published"]}, flush=True)


if __name__ == "__main__":
    main()
