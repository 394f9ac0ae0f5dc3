"""Ten language-model services: the tables of docs/llm.md.

    python benchmarks/llm.py [--servegen data/raw/servegen] [--azure data/raw]
        [--out data/recorded-llm] [--parts load azure bursts sizes tune compare]

`load` scores forecasts of the offered load on training days; `azure` asks whether the first half
hour of exact times predicts the second; `bursts` compares the file's bursts with those that
policies assume; `sizes` looks for the three sizes on training days; `tune` chooses the settings of
all policies there; `compare` runs them once on the judged days. Each part writes a table, and the
last two read those before them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from studies.frames import write_csv
from studies.llm import (
    Block,
    Services,
    blocks,
    compare,
    found_sizes,
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
TRAINING_STARTS = (180, 900)  # minutes of the day: 3 h and 15 h
JUDGED_STARTS = (180, 540, 900, 1260)
SEED = 24
MET = (0.95, 0.85, 0.6)  # shares of requests within their SLO that the best rival reaches
FIRST_TUNED = 16  # rivals are tuned here before the sizes are known
CANDIDATES = (10, 11, 12, 13, 14, 16, 18, 20, 24, 28, 32)  # replicas
PARTS = ("load", "azure", "bursts", "sizes", "tune", "compare")


def of_days(services: Services, days: Sequence[int], starts: Sequence[int]) -> list[Block]:
    table = latency_table(services.jobs)
    return [block for day in days for block in blocks(services, table, day, starts, SEED)]


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
    if "load" in options.parts:
        write("load", load_scores(services, TRAINING))
    training = []
    if {"sizes", "tune"} & set(options.parts):
        training = of_days(services, TRAINING, TRAINING_STARTS)
    if "sizes" in options.parts:
        first = tune(training, (FIRST_TUNED,), LLM_RIVALS)
        write("sizes", found_sizes(training, CANDIDATES, first, LLM_RIVALS))
    if "tune" in options.parts:
        sizes = nearest_sizes(written("sizes"), MET)
        write("tuning", tune(training, sizes, LLM_RIVALS | FARO))
    if "compare" in options.parts:
        judged = of_days(services, JUDGED, JUDGED_STARTS)
        rows = compare(judged, written("tuning"), LLM_RIVALS | FARO)
        write("compare", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
