"""Shared replicas on the workloads of config/wide.yaml: a table of docs/sharing.md.

    python -m studies.sharing.wide             # about an hour of two idle cores
    python -m studies.sharing.wide weekend launch
    python -m studies.sharing.wide doubling stop --seeds 8 --trials 1   # a day of eight worlds

Faro-Sum decides for isolated replicas, and for replicas that hold two models. Forecasters are
fitted to the days before the judged one. data/recorded-sharing/wide.csv gets the losses by block of
the day; the rows of a world replace its earlier ones. `tables.py` has the table. With
`--seeds`, a generated workload is drawn with so many seeds, and its rows are named after them; the
column `day` has the seed then.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from faro_lib.files import read_yaml
from faro_lib.workload import SYNTHETIC, Traces
from faro_lib.workload.tables import load_workload
from studies.days.run import CLAIRVOYANT, over_days
from studies.sharing.world import ISOLATED, sharing
from studies.tables.frames import write_csv

CONFIG = Path("config/wide.yaml")
OUT = Path("data/recorded-sharing/wide.csv")
MODELS = 2
SHARED = f"Faro-Sum, {MODELS} models"
TRIALS = 2
FIRST = "azure-2019"  # the name of the workload that CONFIG has at its top


class World(NamedTuple):
    name: str
    traces: Traces
    days: list[int]
    capacities: list[int]


def worlds(wanted: Sequence[str], raw: str, seed: int | None = None) -> Iterator[World]:
    """The workloads of CONFIG with these names; all of them without names.

    `seed` replaces that of generated workloads, and others raise ValueError; None: as in CONFIG.
    """
    config = read_yaml(CONFIG)
    top = {key: config[key] for key in ("workload", "jobs", "capacities")}
    every: list[dict[str, Any]] = [
        {"name": FIRST, **top, "judged": config["days"]["judged"]},
        *config["days"]["worlds"],
    ]
    unknown = sorted(set(wanted) - {world["name"] for world in every})
    if unknown:
        accepted = ", ".join(world["name"] for world in every)
        raise ValueError(f"unknown world {unknown[0]!r}; accepted: {accepted}")
    for world in every:
        if wanted and world["name"] not in wanted:
            continue
        workload = world.get("workload", SYNTHETIC)
        synthetic = world.get("synthetic", {})
        if seed is not None:
            if workload != SYNTHETIC:
                raise ValueError(f"{world['name']} is not generated, so it has no seed")
            synthetic = synthetic | {"seed": seed}
        traces = load_workload(workload, world.get("jobs"), raw=raw, synthetic=synthetic)
        days = world.get("judged") or [traces.days + 1]
        yield World(world["name"], traces, days, world["capacities"])


def blocks_of(world: World, trials: int) -> pd.DataFrame:
    """The losses of both policies on the judged days, by block (`studies.days.run.over_days`)."""
    parts = []
    for name, traces in ((ISOLATED, world.traces), (SHARED, sharing(world.traces, MODELS))):
        blocks = over_days(traces, world.days, world.capacities, ["Faro-Sum"], trials)
        blocks = blocks[blocks["policy"] != CLAIRVOYANT]
        parts.append(blocks.assign(policy=name, world=world.name))
    return pd.concat(parts, ignore_index=True)


def blocks_of_seeds(name: str, seeds: int, trials: int) -> pd.DataFrame:
    """`blocks_of` for seeds 1 to `seeds` of a generated workload; the column `day` has the seed."""
    parts = []
    for seed in range(1, seeds + 1):
        print(f"{name}, seed {seed}", flush=True)
        (world,) = worlds([name], "", seed)
        parts.append(blocks_of(world, trials).assign(day=seed))
    return pd.concat(parts, ignore_index=True).assign(world=f"{name}, {seeds} worlds")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("worlds", nargs="*", help="names in config/wide.yaml, or azure-2019")
    parser.add_argument("--raw", default="data/raw")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seeds", type=int, help="worlds of each generated workload")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    if options.seeds:
        tables = (blocks_of_seeds(name, options.seeds, options.trials) for name in options.worlds)
    else:
        of_config = worlds(options.worlds, options.raw)
        tables = (blocks_of(world, options.trials) for world in of_config)
    for table in tables:
        print(", ".join(table["world"].unique()), flush=True)
        if options.out.exists():
            before = pd.read_csv(options.out)
            others = before[~before["world"].isin(table["world"])]
            table = pd.concat([others, table], ignore_index=True)
        write_csv(table, options.out)


if __name__ == "__main__":
    main()
