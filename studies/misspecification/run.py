"""Services that are not as stated: the tables of docs/learning.md.

    python -m studies.misspecification.run [--raw data/raw] [--out data/recorded-misspecification]

On the published day, or with --generated on a synthetic day. Rivals are chosen on the last training
day in the same world. The evaluation day is simulated once; forecasters are fitted to the days
before. A world and capacity that is in the tables is not repeated. With `--add`, only the rivals
that it names are added to the worlds that are in the tables. With `--again`, the Faro that learns
is run again in these worlds, and its old rows are replaced. With `--more`, all policies of these
worlds get the trials of TRIALS that they lack, with the settings that were chosen.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from faro_lib.policies import PolicyContext
from faro_lib.simulate.measure import measure
from faro_lib.workload import PUBLISHED, Traces
from faro_lib.workload.synthetic import synthetic
from faro_lib.workload.tables import load_workload
from studies.misspecification.rivals import SEARCHED, STATIC, added, as_chosen
from studies.misspecification.world import (
    LEARNING,
    World,
    compared,
    faros,
    measured,
    training_context,
    worlds,
)
from studies.tables.frames import write_csv

CAPACITIES = (36, 32)
GENERATED_SEEDS = (21, 22)
# The trials of a world; the others have one.
TRIALS = {"as stated": 3, "±25 %": 3, "±40 %": 3, "±100 %": 3, "roll-out at noon": 3}
WRONG_BY_SHAPE = (
    "at random",
    "heavy tail",
    "slow spells",
    "100 ms elsewhere",
    "spread twice as large",
)
TRIALS |= dict.fromkeys(WRONG_BY_SHAPE, 5)
KEYS = ["workload", "world", "capacity_cores"]
# Rivals that forecast are slow, so only these worlds have them.
FORECASTING = ("Predictive HPA", "MArk")
FORECAST_IN = ("as stated", "±25 %")


def workloads(raw: str, generated: bool) -> dict[str, Traces]:
    """The traces of each workload by its name."""
    if not generated:
        return {"published": load_workload(PUBLISHED, raw=raw)}
    return {f"generated, seed {seed}": synthetic(seed=seed) for seed in GENERATED_SEEDS}


def rivals_in(world: str) -> tuple[str, ...]:
    """The rivals of `studies.misspecification.rivals` that a world has."""
    rivals = (STATIC, *SEARCHED)
    return tuple(one for one in rivals if one not in FORECASTING or world in FORECAST_IN)


def without_learning(runs: pd.DataFrame, workload: str, world: str, cores: int) -> pd.DataFrame:
    """The table without the runs of the Faro that learns in this case."""
    case = (runs[KEYS] == [workload, world, cores]).all(axis=1)
    return runs[~(case & (runs["policy"] == LEARNING))]


def further_trials(
    traces: Traces,
    context: PolicyContext,
    world: World,
    capacity: int,
    recorded: pd.DataFrame,
    choices: pd.DataFrame,
) -> pd.DataFrame:
    """The trials of TRIALS that the policies of this case lack; both tables are the case's own."""
    policies = faros(context, world, capacity) | as_chosen(context, choices, world, capacity)
    rows: list[dict[str, Any]] = []
    for name, trials in recorded.groupby("policy", sort=False)["trial"]:
        lacking = range(int(trials.max()) + 1, TRIALS.get(world.name, 1))
        rows += measured(traces, {name: policies[name]}, world, capacity, lacking)
    return pd.DataFrame(rows)


def read(path: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(path)] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", default="data/raw")
    parser.add_argument("--out", default="data/recorded-misspecification")
    parser.add_argument("--generated", action="store_true")
    parser.add_argument("--forecaster", default="auto")
    parser.add_argument("--world", nargs="+", help="only these worlds")
    parser.add_argument("--add", nargs="+", choices=(STATIC, *SEARCHED), default=[])
    parser.add_argument("--again", action="store_true", help="run the Faro that learns again")
    parser.add_argument("--more", action="store_true", help="run the trials that are lacking")
    options = parser.parse_args()
    folder = Path(options.out)
    runs, choices = read(folder / "runs.csv"), read(folder / "choices.csv")
    done = {tuple(key) for table in runs for key in table[KEYS].itertuples(index=False)}
    recorded = [*KEYS, "policy"]
    present = {tuple(key) for table in runs for key in table[recorded].itertuples(index=False)}
    for name, traces in workloads(options.raw, options.generated).items():
        table = measure(traces.jobs, capacity=max(CAPACITIES))
        context = training_context(traces, table, options.forecaster)
        jobs, minutes = traces.evaluation.shape[1:]
        every = {world.name: world for world in worlds(jobs, minutes)}
        wanted = options.world or sorted(every, key=lambda world: -TRIALS.get(world, 1))
        for world, cores in product(wanted, CAPACITIES):
            known, trials = (name, world, cores) in done, TRIALS.get(world, 1)
            if known != bool(options.add or options.again or options.more):
                continue
            parts = []
            if options.more:
                of_case = [
                    every_case[(every_case[KEYS] == [name, world, cores]).all(axis=1)]
                    for every_case in (pd.concat(runs), pd.concat(choices))
                ]
                more = further_trials(traces, context, every[world], cores, *of_case)
                parts += [(more, pd.DataFrame())]
            elif options.again:
                runs = [without_learning(one, name, world, cores) for one in runs]
                parts += [compared(traces, context, [every[world]], [cores], trials, {}, None)]
            elif not known:
                parts += [compared(traces, context, [every[world]], [cores], trials, report=None)]
            unchanged = options.again or options.more
            for rival in () if unchanged else options.add or rivals_in(world):
                if rival in rivals_in(world) and (name, world, cores, rival) not in present:
                    parts += [added(traces, context, every[world], cores, trials, rival)]
            for found in parts:
                for tables, new in zip((runs, choices), found):
                    tables.append(new.assign(workload=name))
            write_csv(pd.concat(runs), folder / "runs.csv")
            write_csv(pd.concat(choices), folder / "choices.csv")
            for of_run, _ in parts:
                lost = of_run.groupby("policy", sort=False)["lost_later"].mean().round(3)
                print(name, world, cores, lost.to_dict(), flush=True)


if __name__ == "__main__":
    main()
