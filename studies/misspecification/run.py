"""Services that are not as stated: the tables of docs/learning.md.

    python -m studies.misspecification.run [--raw data/raw] [--out data/recorded-misspecification]

On the published day, or with --generated on a synthetic day. Rivals are chosen on the last training
day in the same world. The evaluation day is simulated once; forecasters are fitted to the days
before. A world and capacity that is in the tables is not repeated.
"""

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from faro_lib.simulate.measure import measure
from faro_lib.workload import PUBLISHED, Traces
from faro_lib.workload.synthetic import synthetic
from faro_lib.workload.tables import load_workload
from studies.misspecification.world import compared, training_context, worlds
from studies.tables.frames import write_csv

CAPACITIES = (36, 32)
GENERATED_SEEDS = (21, 22)
# The trials of a world; the others have one.
TRIALS = {"as stated": 3, "±25 %": 3, "±40 %": 3, "±100 %": 3, "roll-out at noon": 3}
KEYS = ["workload", "world", "capacity_cores"]


def workloads(raw: str, generated: bool) -> dict[str, Traces]:
    """The traces of each workload by its name."""
    if not generated:
        return {"published": load_workload(PUBLISHED, raw=raw)}
    return {f"generated, seed {seed}": synthetic(seed=seed) for seed in GENERATED_SEEDS}


def read(path: Path) -> list[pd.DataFrame]:
    return [pd.read_csv(path)] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", default="data/raw")
    parser.add_argument("--out", default="data/recorded-misspecification")
    parser.add_argument("--generated", action="store_true")
    parser.add_argument("--forecaster", default="auto")
    parser.add_argument("--world", nargs="+", help="only these worlds")
    options = parser.parse_args()
    folder = Path(options.out)
    runs, choices = read(folder / "runs.csv"), read(folder / "choices.csv")
    done = {tuple(key) for table in runs for key in table[KEYS].itertuples(index=False)}
    for name, traces in workloads(options.raw, options.generated).items():
        table = measure(traces.jobs, capacity=max(CAPACITIES))
        context = training_context(traces, table, options.forecaster)
        jobs, minutes = traces.evaluation.shape[1:]
        every = {world.name: world for world in worlds(jobs, minutes)}
        wanted = options.world or sorted(every, key=lambda world: -TRIALS.get(world, 1))
        for world, cores in product(wanted, CAPACITIES):
            if (name, world, cores) in done:
                continue
            trials = TRIALS.get(world, 1)
            found = compared(traces, context, [every[world]], [cores], trials, report=None)
            for tables, new in zip((runs, choices), found):
                new.insert(0, "workload", name)
                tables.append(new)
            write_csv(pd.concat(runs), folder / "runs.csv")
            write_csv(pd.concat(choices), folder / "choices.csv")
            lost = found[0].groupby("policy", sort=False)["lost_later"].mean().round(3)
            print(name, world, cores, lost.to_dict(), flush=True)


if __name__ == "__main__":
    main()
