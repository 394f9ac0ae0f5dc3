"""Ten language-model services: the tables of docs/llm.md.

    python -m studies.llm.run [--servegen data/raw/servegen] [--azure data/raw]
        [--out data/recorded-llm]
        [--parts load azure planners bursts tune compare drops ablation bounds ample]

`load` scores forecasts of the offered load on training days; `azure` asks whether the first half
hour of exact times predicts the second, and what the error is made of; `planners` asks what a
planner loses on these times that assumes random ones; `bursts` compares the file's bursts with
those that policies assume; `tune` chooses the factor of the rates, the three sizes and the settings
of all policies on training days; `compare` runs them once on the judged days, with what `tune` has
written; `drops` does so if requests are dropped, on training days and on judged ones; `ablation`
runs variants of Faro; `bounds` runs Faro with the truth in place of its forecasts, and finds what
every policy misses; `ample` gives every service eight replicas, at the file's rates. Each part
writes its tables.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from studies.llm.azure import differences, forecasts, read_logs, steps
from studies.llm.bounds import bounds
from studies.llm.bursts import planners_compared
from studies.llm.load import load_scores
from studies.llm.rivals import FARO, LLM_RIVALS, VARIANTS, WITH_DROPS
from studies.llm.servegen import Clients, burst_agreement, read
from studies.llm.stage import scaled
from studies.llm.world import (
    Block,
    Services,
    ample,
    blocks,
    compare,
    latency_table,
    services_of,
    sizes_near,
    tune,
)
from studies.tables.frames import write_csv

TRAINING, JUDGED = (9, 10), (11, 12, 13, 14)
STARTS = (180, 660, 1140)  # minutes of these days at which blocks begin
SEED = 24
MET = (0.95, 0.85, 0.6)  # shares of requests within their SLO that the best rival reaches
FREE = 4  # replicas beyond one per service, at least
# Replicas to try, by the factor of the rates.
CANDIDATES = {2: (14,), 3: (15, 17, 18, 23, 32)}
AZURE_CANDIDATES = (11, 12, 14, 16, 20, 24, 28, 32, 36, 40, 50, 60)  # replicas for ten services
AZURE_TRIALS = 10
OF_AZURE = ("azure", "planners")
PARTS = ("load", *OF_AZURE, "bursts", "tune", "compare", "drops", "ablation", "bounds", "ample")


def drawn(services: Services, days: Iterable[int]) -> Iterator[Block]:
    """The blocks of these days."""
    table = latency_table(services.jobs)
    for day in days:
        yield from blocks(services, table, day, STARTS, SEED)


def tuned(clients: Clients) -> pd.DataFrame:
    """What `tune` has tried, with the factor of the rates.

    The factor is the first of CANDIDATES at which the best rival reaches all shares of MET with at
    least FREE replicas beyond one per service. Only there, Faro is tuned.
    """
    tables = []
    for factor, capacities in CANDIDATES.items():
        services = services_of(scaled(clients, factor))
        training = list(drawn(services, TRAINING))
        of_rivals = tune(training, capacities, LLM_RIVALS)
        tables.append(of_rivals.assign(rates=factor))
        sizes = sizes_near(of_rivals, MET, len(services.jobs) + FREE)
        print(f"rates x {factor}: sizes {sizes}", flush=True)
        if sizes:
            tables.append(tune(training, sizes, FARO).assign(rates=factor))
            break
    return pd.concat(tables, ignore_index=True)


def choices_of(tuning: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """What was tried at the sizes and the factor of the rates for which Faro was tuned."""
    of_faro = tuning[tuning["rival"].isin(FARO)]
    rates, sizes = of_faro["rates"].iloc[0], of_faro["capacity_cores"].unique()
    return tuning[tuning["capacity_cores"].isin(sizes) & (tuning["rates"] == rates)], rates


def blocks_of(clients: Clients, rates: float, days: Iterable[int]) -> Iterator[Block]:
    """The blocks of these days, with all rates multiplied by a factor."""
    return drawn(services_of(scaled(clients, rates)), days)


def settings_of_variants(choices: pd.DataFrame) -> pd.DataFrame:
    """The rows of the policies whose settings the VARIANTS have."""
    whole = {name: name.partition(", ")[0] for name in VARIANTS}
    return pd.concat(
        [choices[choices["rival"] == policy].assign(rival=name) for name, policy in whole.items()],
        ignore_index=True,
    )


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

    if set(options.parts) & set(OF_AZURE):
        logs = read_logs(options.azure)
    if "azure" in options.parts:
        write("azure", pd.DataFrame(forecasts(logs)))
        write("azure-halves", pd.DataFrame(differences(logs)))
        write("azure-steps", pd.DataFrame(steps(logs)))
    if "planners" in options.parts:
        write("azure-planners", planners_compared(logs, AZURE_CANDIDATES, MET, AZURE_TRIALS))
    if set(options.parts) <= set(OF_AZURE):
        return
    clients = read(options.servegen)
    if "bursts" in options.parts:
        write("bursts", burst_agreement(clients, TRAINING[0] - 1))
    if "load" in options.parts:
        write("load", load_scores(services_of(clients), TRAINING))
    if "tune" in options.parts:
        write("tuning", tuned(clients))
    choices, rates = choices_of(pd.read_csv(options.out / "tuning.csv"))
    if "compare" in options.parts:
        rows = compare(blocks_of(clients, rates, JUDGED), choices, LLM_RIVALS | FARO)
        write("compare", pd.DataFrame(rows))
    if "drops" in options.parts:
        for name, days in (("drops-training", TRAINING), ("drops", JUDGED)):
            of_days = blocks_of(clients, rates, days)
            write(name, pd.DataFrame(compare(of_days, choices, WITH_DROPS)))
    if "ablation" in options.parts:
        rows = compare(blocks_of(clients, rates, JUDGED), settings_of_variants(choices), VARIANTS)
        write("ablation", pd.DataFrame(rows))
    if "bounds" in options.parts:
        write("bounds", pd.DataFrame(bounds(blocks_of(clients, rates, JUDGED), choices)))
    if "ample" in options.parts:
        at = [(day, STARTS) for day in JUDGED]
        write("ample", pd.DataFrame(ample(services_of(clients), at, SEED)))


if __name__ == "__main__":
    main()
