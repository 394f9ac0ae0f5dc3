"""Twenty generated worlds of each family: Faro-Sum and rivals that are tuned for the family.

    python -m studies.families.run             # about an hour on two idle cores
    python -m studies.families.run flash stop  # some families only, beside those that are recorded

Worlds of a family differ in the seed of the generator. Rivals are tuned on the last training day of
one more world, which is not judged. A world has one trial. data/recorded-families/runs.csv gets a
row per world and policy, tuning.csv the settings that were tried. `--static` only adds the runs of
Static. studies/families/tables.py writes the table in docs/elsewhere.md, with intervals whose units
are the worlds.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials, trial_draws
from faro_lib.metrics.measures import summarize
from faro_lib.policies import PolicyContext, make
from faro_lib.queueing import ModelLike
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces
from faro_lib.workload.changes import changed
from faro_lib.workload.synthetic import synthetic
from studies.forecast.remembered import remembered
from studies.rivals.tuning import chosen, training_days, tune
from studies.tables.frames import write_csv

OUT = Path("data/recorded-families")
LEADER = "Faro-Sum"
STATIC = "Static"
WORLDS = 20
JOBS = 6
TUNING_SEED = 1000  # of the world to tune on; those of judged worlds follow it


class Family(NamedTuple):
    """Worlds with a change, their training days, and the capacity in cores."""

    change: str
    days: int = 4
    capacity: int = 20


FAMILIES = {
    "unchanged": Family("none"),
    "launch": Family("launch"),
    "doubling": Family("double"),
    "flash-crowd": Family("flash"),
    "stop": Family("stop"),
    "weekend": Family("weekend", days=12),  # the evaluation day, 13, is at a weekend
    "idle-jobs": Family("idle", capacity=15),
}


def world(family: Family, seed: int) -> Traces:
    return changed(synthetic(seed=seed, jobs=JOBS, days=family.days), family.change)


def runs_of(
    family: Family, choices: pd.DataFrame | None, latency_model: ModelLike, worlds: int
) -> pd.DataFrame:
    """Measures of Faro-Sum, Static and the tuned rivals: a row per world and policy.

    Without `choices`, only Static runs, and nothing is forecast.
    """
    rows = []
    for seed in range(TUNING_SEED + 1, TUNING_SEED + 1 + worlds):
        traces = world(family, seed)
        fitted = remembered(forecast.fit("persistence" if choices is None else "auto", traces))
        context = PolicyContext(traces.jobs, fitted, latency_model, traces=traces)
        policies = {STATIC: make(STATIC, context)}
        if choices is not None:
            policies = {LEADER: make(LEADER, context)} | policies
            policies |= dict(chosen(choices, context, family.capacity))
        workload = traces.workload()
        draws = trial_draws(workload, 1)
        for trial in run_trials(workload, policies, family.capacity, draws):
            rows.append({"seed": seed} | trial.key | summarize(trial.run))
        print(f"{family.change}, seed {seed}: {len(policies)} policies", flush=True)
    return pd.DataFrame(rows)


def add(table: pd.DataFrame, name: str, path: Path, policy: str | None = None) -> None:
    """Write the rows of a family to `path`; they replace its earlier rows, or those of `policy`."""
    table = table.assign(family=name)
    if path.exists():
        before = pd.read_csv(path, keep_default_na=False)
        replaced = before["family"] == name
        if policy:
            replaced &= before["policy"] == policy
        table = pd.concat([before[~replaced], table], ignore_index=True)
    write_csv(table, path)
    print(path, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(FAMILIES), help=", ".join(FAMILIES))
    parser.add_argument("--worlds", type=int, default=WORLDS)
    parser.add_argument("--static", action="store_true", help="only run Static")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    unknown = [name for name in options.families if name not in FAMILIES]
    if unknown:
        parser.error(f"unknown family {unknown[0]!r}; accepted: {', '.join(FAMILIES)}")
    for name in options.families:
        family = FAMILIES[name]
        traces = world(family, TUNING_SEED)
        latency_model = measure(traces.jobs)
        if options.static:
            runs = runs_of(family, None, latency_model, options.worlds)
            add(runs, name, options.out / "runs.csv", STATIC)
            continue
        days = training_days(traces, [traces.days], latency_model)
        choices = tune(days, [family.capacity])
        runs = runs_of(family, choices, latency_model, options.worlds)
        add(choices, name, options.out / "tuning.csv")
        add(runs, name, options.out / "runs.csv")


if __name__ == "__main__":
    main()
