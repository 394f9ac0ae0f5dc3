"""Ten language-model services: the tables of docs/llm.md.

    python benchmarks/llm.py [--servegen data/raw/servegen] [--azure data/raw]
        [--out data/recorded-llm] [--parts load azure bursts ample tune compare]

`load` scores forecasts of the offered load on training days; `azure` asks whether the first half
hour of exact times predicts the second; `bursts` compares the file's bursts with those that
policies assume; `ample` runs the judged days with eight replicas per service; `tune` chooses the
settings of all policies on training days, and the three sizes; `compare` runs them once on the
judged days, with the settings that `tune` has written. Each part writes a table.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from studies.frames import write_csv
from studies.llm import (
    Block,
    Services,
    ample,
    blocks,
    compare,
    latency_table,
    nearest_sizes,
    services_of,
    tune,
)
from studies.llm_azure import halves, read_logs
from studies.llm_load import load_scores
from studies.llm_rivals import FARO, LLM_RIVALS
from studies.servegen import burst_agreement, read

TRAINING, JUDGED = (9, 10), (11, 12, 13, 14)
TRAINING_BLOCKS = ((9, 900), (10, 180))  # a day and the minute at which a block begins
JUDGED_STARTS = (180, 660, 1140)
SEED = 24
MET = (0.95, 0.85, 0.6)  # shares of requests within their SLO that the best rival reaches
CANDIDATES = (11, 12, 14)  # replicas; 10 leave no choice to ten services
PARTS = ("load", "azure", "bursts", "ample", "tune", "compare")


def drawn(services: Services, at: Iterable[tuple[int, Sequence[int]]]) -> Iterator[Block]:
    """The blocks of days that begin at these minutes."""
    table = latency_table(services.jobs)
    for day, starts in at:
        yield from blocks(services, table, day, starts, SEED)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servegen", type=Path, default=Path("data/raw/servegen"))
    parser.add_argument("--azure", type=Path, default=Path("data/raw"))
    parser.add_argument("--out", type=Path, default=Path("data/recorded-llm"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)

    def write(part: str, table: pd.DataFrame) -> None:
        path = options.out / f"{part}.csv"
        write_csv(table, path)
        print(path, flush=True)

    def written(part: str) -> pd.DataFrame:
        return pd.read_csv(options.out / f"{part}.csv")

    if "azure" in options.parts:
        write("azure", pd.DataFrame(halves(read_logs(options.azure))))
    if options.parts == ["azure"]:
        return
    clients = read(options.servegen)
    services = services_of(clients)
    if "bursts" in options.parts:
        write("bursts", burst_agreement(clients, TRAINING[0] - 1))
    if "ample" in options.parts:
        at = [(day, JUDGED_STARTS) for day in JUDGED]
        write("ample", pd.DataFrame(ample(services, at, SEED)))
    if "load" in options.parts:
        write("load", load_scores(services, TRAINING))
    if "tune" in options.parts:
        training = list(drawn(services, ((day, (start,)) for day, start in TRAINING_BLOCKS)))
        of_rivals = tune(training, CANDIDATES, LLM_RIVALS)
        write("tuning", of_rivals)
        sizes = nearest_sizes(of_rivals, MET)
        print(f"sizes: {sizes}", flush=True)
        write("tuning", pd.concat([of_rivals, tune(training, sizes, FARO)], ignore_index=True))
    if "compare" in options.parts:
        judged = drawn(services, ((day, JUDGED_STARTS) for day in JUDGED))
        tuning = written("tuning")
        sizes = tuning.loc[tuning["rival"].isin(FARO), "capacity_cores"]
        choices = tuning[tuning["capacity_cores"].isin(sizes)]
        write("compare", pd.DataFrame(compare(judged, choices, LLM_RIVALS | FARO)))


if __name__ == "__main__":
    main()
