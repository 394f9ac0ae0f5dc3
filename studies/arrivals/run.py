"""Bursts: the tables of docs/arrivals.md.

    python -m studies.arrivals.run [--azure data/raw] [--out data/recorded-arrivals] [--trials 5]

dispersion.csv has the index of dispersion of the Azure LLM inference trace 2023 and of processes
fitted to it; planners.csv the losses of planners that know or ignore bursts. The trace's files are
fetched by `python -m faro_pipeline fetch azure-llm-2023`.
"""

import argparse
from pathlib import Path

import pandas as pd

from faro_lib.workload.bursts import burst_arrivals
from faro_lib.workload.synthetic import synthetic
from studies.arrivals.world import BurstyWorld, agreement, generated, planned, read_azure, replayed
from studies.tables.frames import write_csv

GENERATED_SEED = 21
MINUTES = 90
LIKE_CODE = (50.0, 5.0, 1.5)  # bursts of the generated world, about those of the service `code`
AZURE_CORES = (80, 100, 120)
GENERATED_CORES = (36,)


def worlds(azure: Path) -> list[BurstyWorld]:
    """The trace of Azure, and a generated world."""
    found = [replayed(read_azure(azure), AZURE_CORES)]
    traces = synthetic(seed=GENERATED_SEED)
    found.append(
        generated(
            "generated, bursts like code's",
            traces,
            MINUTES,
            GENERATED_CORES,
            lambda counts, rng: burst_arrivals(counts, LIKE_CODE, rng),
            LIKE_CODE,
        )
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--azure", type=Path, default=Path("data/raw"))
    parser.add_argument("--out", type=Path, default=Path("data/recorded-arrivals"))
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    table = agreement(read_azure(options.azure))
    write_csv(table.round(4), options.out / "dispersion.csv")
    rows: list[dict] = []
    for world in worlds(options.azure):
        rows += planned(world, options.trials, lambda line: print(line, flush=True))
        write_csv(pd.DataFrame(rows).round(6), options.out / "planners.csv")


if __name__ == "__main__":
    main()
