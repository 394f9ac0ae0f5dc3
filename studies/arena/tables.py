"""The tables of docs/arena.md."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_ops.advise.arena.scenarios import scenarios
from studies.arena import scores
from studies.arena.scores import Entry, read_entries
from studies.tables.pages import ROOT, Part
from studies.tables.wording import and_list, markdown_table

KEPT = "data/arena"
LANGUAGE_MODELS = "llm-10-v1"
KINDS = ("public", "hidden")  # of seeds


def kept() -> dict[str, Entry]:
    """Policy -> its entry in data/arena."""
    return read_entries(ROOT / KEPT)


def ranking(entries: dict[str, Entry]) -> str:
    """A row per entry: rank, regret with its 95 % interval, decision time, scenarios it wins."""
    regret, _ = scores.by_scenario(entries)
    least = scores.lowest(regret)
    rows = []
    for name, row in scores.ranking(entries).iterrows():
        rank = f"{row['rank']:.0f} ({row['first']:.0f} to {row['last']:.0f})"
        mean = f"{row['regret']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
        by_seed = (f"{row['public']:.1%}", f"{row['hidden']:.1%}")
        wins = ", ".join(regret.index[least[name]])
        rows.append((rank, name, mean, *by_seed, f"{row['decision_ms']:.1f} ms", wins))
    heads = ["rank", "entry", "regret", "public seeds", "hidden seeds", "decision"]
    return markdown_table([*heads, "least regret in"], rows)


def by_scenario(entries: dict[str, Entry]) -> str:
    """A column per scenario: the clairvoyant's lost utility and each entry's regret.

    The least regret is bold.
    """
    regret, bound = scores.by_scenario(entries)
    least = regret.min(axis=1)
    rows: list[tuple[str, ...]] = [("bound", *(f"{bound[one]:.1%}" for one in regret.index))]
    for entry in entries:
        cells = ["-" if np.isnan(value) else f"{value:.1%}" for value in regret[entry]]
        best = (regret[entry] == least).tolist()
        rows.append((entry, *(f"**{one}**" if bold else one for one, bold in zip(cells, best))))
    return markdown_table(["entry", *(short(one) for one in regret.index)], rows)


def short(scenario: str) -> str:
    """A scenario's name without the version 1.

    >>> short("steady-v1"), short("steady-v2")
    ('steady', 'steady-v2')
    """
    return scenario.removesuffix("-v1")


def speed(measured: dict[str, Any]) -> str:
    """Simulated minutes per CPU second, by interval of the decisions and kind of action."""
    per_s = measured["minutes_per_s"]
    rows = []
    for interval, tick_s in (("every minute", 60), ("every five minutes", 300)):
        for action, text in (("still", "replicas kept"), ("random", "random replicas")):
            rates = [per_s[f"{queue} {tick_s}"][action] for queue in ("requests", "fluid")]
            rows.append((f"{interval}, {text}", *(f"{rate:,.0f}" for rate in rates)))
    return markdown_table(["decisions", "single requests", "fluid"], rows)


def listed() -> str:
    """A row per scenario of the arena."""
    rows = []
    for one in scenarios().values():
        rows.append((one.name, "quick" if one.quick else "all", one.capacity, one.what))
    return markdown_table(["scenario", "set", "cores", "what it is"], rows)


def of_language_models(entries: dict[str, Entry]) -> str:
    """A row per entry of llm-10-v1, by mean regret: regret and SLO violations by seed."""
    tables = {name: pd.DataFrame(entry["scenarios"]) for name, entry in entries.items()}
    rows = []
    for name, table in sorted(tables.items(), key=lambda item: item[1]["regret"].mean()):
        by_kind = table.set_index("kind").loc[list(KINDS)]
        measures = [*by_kind["regret"], *by_kind["slo_violation_rate"]]
        mean = table["regret"].mean()
        rows.append((name, f"{mean:.1%}", *(f"{value:.1%}" for value in measures)))
    heads = [f"{what}, {kind}" for what in ("regret", "SLO missed") for kind in KINDS]
    return markdown_table(["entry", "mean regret", *heads], rows)


def code(entries: dict[str, Entry]) -> str:
    """By how many versions of the library the entries were scored, from their hashes."""
    versions: dict[str, list[str]] = {}
    later: dict[str, set[str]] = {}  # scenario -> versions that scored it after the others
    for name, entry in entries.items():
        versions.setdefault(entry["sha256"]["library"], []).append(name)
        for scenario, hashes in entry.get("added", {}).items():
            later.setdefault(scenario, set()).add(hashes["library"])
    if len(versions) == 1 and not later:
        return "All entries were scored with the same version of the library."
    text = "All entries were scored with the same version of the library. "
    if len(versions) > 1:
        groups = "; ".join(and_list(names) for names in versions.values())
        text = (
            f"The entries were scored with {_versions(len(versions))} of the library, on the same "
            f"requests: {groups}. "
        )
    for scenario, hashes in later.items():
        by = _versions(len(hashes))
        text += f"The scenario {scenario} was added later; {by} scored it for these entries. "
    text += "`python -m studies.arena.run --record` scores all of them again."
    return textwrap.fill(text, 100, break_on_hyphens=False)


def own_code(runs: pd.DataFrame, entries: dict[str, Entry]) -> str:
    """A row per autoscaler: equal decisions, and the mean regret of our reading and its own code.

    Below: what an entry of ours loses on the same runs.
    """
    rows = []
    for name, of_one in runs.groupby("autoscaler", sort=False):
        (versions,) = of_one["versions"].unique()
        total = of_one[["decisions", "equal", "changes", "equal_changes"]].sum()
        cells = (
            f"{total['equal'] / total['decisions']:.1%} of {total['decisions']:,}",
            f"{total['equal_changes'] / total['changes']:.1%} of {total['changes']:,}",
            f"{of_one['regret_reading'].mean():.1%}",
            f"{of_one['regret_own'].mean():.1%}",
        )
        rows.append((name, versions, *cells))
    heads = ["autoscaler", "own code", "equal targets", "equal, of those that change"]
    table = markdown_table([*heads, "regret, our reading", "own code"], rows)
    keys = runs[["scenario", "kind"]].drop_duplicates()
    shared = [tuple(key) for key in keys.itertuples(index=False)]
    faro = [
        row["regret"]
        for row in entries["Faro-Sum"]["scenarios"]
        if (row["scenario"], row["kind"]) in shared
    ]
    seeds = and_list(list(runs["kind"].unique()))
    below = (
        f"{len(faro)} runs of each, with the {seeds} seed of each scenario. The mean regret of "
        f"Faro-Sum in the same runs is {np.mean(faro):.1%}."
    )
    return f"{table}\n\n{below}"


def built(runs: pd.DataFrame, own: pd.DataFrame) -> str:
    """How many decisions of readings with the rules of the code are those of the own code, and how
    far their regret is from that of the own code in the same runs.
    """
    same = runs.merge(own, on=["autoscaler", "scenario", "kind"])
    apart = (same["regret"] - same["regret_own"]).abs().max()
    total, equal = runs["decisions"].sum(), runs["equal"].sum()
    share = f"all {total:,}" if total == equal else f"{equal:,} of {total:,}"
    names = and_list(list(runs["scenario"].unique()))
    text = (
        "With these rules in our readings (`studies/arena/as_built.py`), they ask for what the own "
        f"code asks in {share} decisions of {len(runs)} runs in which they decide: each of the "
        f"{runs['autoscaler'].nunique()} autoscalers in {names}, with the public seed "
        "(`python -m studies.arena.agreement --built --public`). Where the own code decided by "
        f"itself, its regret differs from theirs by at most {apart:.1g}."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False)


def _versions(count: int) -> str:
    return "one version" if count == 1 else f"{count} versions"


def of_entries(text: Callable[[dict[str, Entry]], str]) -> Callable[[Path], str]:
    return lambda folder: text(read_entries(folder))


PAGE = "docs/arena.md"
ENTRIES = [KEPT]
OWN, BUILT = (f"{KEPT}/own-code{name}.csv" for name in ("", "-built"))  # of agreement.py
ENVIRONMENT = ["data/arena-environment.json"]  # of benchmarks/arena_speed.py
PARTS = [
    Part(PAGE, "ranking", ENTRIES, of_entries(ranking)),
    Part(PAGE, "by scenario", ENTRIES, of_entries(by_scenario)),
    Part(PAGE, "scenarios", ["faro_ops/advise/arena/scenarios.yaml"], lambda _: listed()),
    Part(
        PAGE,
        "language models",
        ENTRIES,
        lambda folder: of_language_models(scores.read_scenario(folder, LANGUAGE_MODELS)),
    ),
    Part(PAGE, "own code", [OWN, KEPT], lambda runs, folder: own_code(runs, read_entries(folder))),
    Part(PAGE, "readings with these rules", [BUILT, OWN], built),
    Part(PAGE, "speed", ENVIRONMENT, speed),
    Part(PAGE, "versions", ENTRIES, of_entries(code)),
]
