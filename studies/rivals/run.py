"""Rivals at their best: tune them on training days, then compare them with Faro-Sum on later days.

    python -m studies.rivals.run published     # day 11; tuned on days 9 and 10
    python -m studies.rivals.run azure-2019    # days 12 to 14; tuned on day 11

data/recorded-rivals gets two tables per workload: NAME-tuning.csv has every setting that was tried
and which were chosen, NAME.csv every run of the comparison. `--rivals` tunes
only some, and keeps the choices of an earlier run for the others; without a name, it tunes none.
`--static` only runs Static, and keeps the other runs.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_draws
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.simulate.measure import measure
from faro_lib.workload import PUBLISHED, Traces
from faro_lib.workload.tables import load_workload
from studies.forecast.remembered import remembered
from studies.rivals.autoscalers import RIVALS
from studies.rivals.tuning import chosen, training_days, tune
from studies.tables.frames import write_csv

OUT = Path("data/recorded-rivals")
LEADER = "Faro-Sum"
STATIC = "Static"
# The policies of a comparison at a capacity, by name.
PoliciesOf = Callable[[PolicyContext, int], dict[str, Policy]]


@dataclass(frozen=True)
class World:
    """A workload, the days to tune on and to judge, and the capacities of both."""

    workload: str
    tuned: tuple[int, ...]
    judged: tuple[int, ...]
    # Capacity of the judged days -> capacity at which its rivals are tuned.
    capacities: dict[int, int]
    trials: int
    jobs: str | None = None
    posterior: Path | None = None  # of the Bayesian forecaster on judged days; None: `auto`


WORLDS = {
    # Days 9 and 10 have about 0.88 of the load of day 11 (docs/tuning.md).
    "published": World(
        PUBLISHED,
        tuned=(9, 10),
        judged=(11,),
        capacities={36: 32, 32: 28, 16: 14},
        trials=5,
        posterior=Path("data/posterior-paper.npz"),
    ),
    "azure-2019": World(
        "data/azure-2019.csv.gz",
        tuned=(11,),
        judged=(12, 13, 14),
        capacities={24: 24, 18: 18, 12: 12},
        trials=2,
        jobs="data/azure-2019-jobs.csv",
    ),
}


def contenders(world: World, choices: pd.DataFrame) -> PoliciesOf:
    """The rivals with their chosen settings, Static and Faro-Sum."""
    # The capacities of the judged days in place of those of the training days.
    by_tuned = {tuned: judged for judged, tuned in world.capacities.items()}
    choices = choices.assign(capacity_cores=choices["capacity_cores"].map(by_tuned))

    def policies_of(context: PolicyContext, capacity: int) -> dict[str, Policy]:
        rivals = dict(chosen(choices, context, capacity))
        return rivals | standing(context, capacity) | {LEADER: make(LEADER, context)}

    return policies_of


def standing(context: PolicyContext, capacity: int) -> dict[str, Policy]:
    """Static alone."""
    return {STATIC: make(STATIC, context)}


def compare(world: World, traces: Traces, latency_model, policies_of: PoliciesOf) -> pd.DataFrame:
    """Measures of policies on the judged days: a row per day, capacity, policy and trial."""
    rows = []
    for day in world.judged:
        judged = traces if day == traces.days + 1 else traces.until(day)
        name = "bayes" if world.posterior else "auto"
        options: dict[str, Any] = {"posterior": world.posterior} if world.posterior else {}
        context = PolicyContext(
            traces.jobs,
            remembered(forecast.fit(name, judged, **options)),
            latency_model,
            traces=judged,
        )
        workload = judged.workload()
        for capacity in world.capacities:
            policies = policies_of(context, capacity)
            draws = trial_draws(workload, world.trials)
            for trial in run_trials(workload, policies, capacity, draws, report=print):
                rows.append({"day": day} | trial.key | summarize(trial.run, published=True))
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path) -> None:
    write_csv(table, path)
    print(path, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("world", choices=list(WORLDS))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), help=", ".join(RIVALS))
    parser.add_argument("--static", action="store_true", help="only run Static")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.rivals if name not in RIVALS]
    if unknown:
        parser.error(f"unknown rival {unknown[0]!r}; accepted: {', '.join(RIVALS)}")
    world = WORLDS[options.world]
    traces = load_workload(world.workload, world.jobs)
    latency_model = measure(traces.jobs)
    of_world = options.out / f"{options.world}.csv"
    if options.static:
        before = pd.read_csv(of_world)
        runs = compare(world, traces, latency_model, standing)
        write(pd.concat([before[before["policy"] != STATIC], runs], ignore_index=True), of_world)
        return
    tuning = options.out / f"{options.world}-tuning.csv"
    days = training_days(traces, world.tuned, latency_model) if options.rivals else []
    for name in options.rivals:
        table = tune(days, list(world.capacities.values()), {name: RIVALS[name]})
        if tuning.exists():
            before = pd.read_csv(tuning)
            table = pd.concat([before[before["rival"] != name], table], ignore_index=True)
        write(table, tuning)
    if not tuning.exists():
        parser.error(f"{tuning}: no such file, and no rival to tune")
    runs = compare(world, traces, latency_model, contenders(world, pd.read_csv(tuning)))
    write(runs, of_world)


if __name__ == "__main__":
    main()
