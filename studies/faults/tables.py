"""The tables of faults in docs/kubernetes.md and of an hour of them in CONTRIBUTING.md.

`make test-faults` writes the recorded rows into the file FARO_FAULTS and the folder FARO_SOAK. The
file of faults may hold several rows of a fault; the last one counts.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from studies.tables.pages import Part
from studies.tables.wording import markdown_table


def table(lines: Iterable[str]) -> str:
    """A row per fault, in the order in which the faults were first recorded."""
    faults = {row["fault"]: row for row in map(json.loads, lines)}
    rows = [
        (one["fault"], one["sent"], one["failed"], f"{one['whole_s']:.0f}")
        for one in faults.values()
    ]
    heads = ["fault", "requests sent", "failed", "seconds until all is as before"]
    return markdown_table(heads, rows)


def hour_table(rows: Iterable[Mapping[str, str]]) -> str:
    """A row per event, in the order in which they happened."""
    lines = [
        (
            f"{float(row['at_s']) / 60:.0f}",
            row["event"],
            f"{float(row['whole_s']):.0f}",
            row["sent"],
            row["failed"],
            row["in_killed_pods"],
            row["targets"],
        )
        for row in rows
    ]
    heads = [
        "minute",
        "event",
        "seconds until all is as before",
        "requests sent",
        "failed",
        "of these in killed pods",
        "targets meanwhile",
    ]
    return markdown_table(heads, lines)


def sentence(looks: Sequence[Mapping[str, str]], lost: Sequence[Mapping[str, str]]) -> str:
    """How long the run was, what it lost, and how busy the machine was."""
    minutes = float(looks[-1]["at_s"]) / 60
    loads = [float(look["load"]) for look in looks]
    middle, most = statistics.median(loads), max(loads)
    return (
        f"Recorded in {minutes:.0f} minutes. Requests that failed, also between the events:"
        f" {len(lost)}. Other programs shared the machine, whose load per core was {middle:.1f} in"
        f" the median, {most:.1f} at most."
    )


def recorded(path: Path) -> list[dict[str, str]]:
    """The rows of a table of the recorded hour, as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def hour(folder: Path) -> str:
    """The table and the sentence of the recorded hour."""
    events, looks, lost = (recorded(folder / f"{name}.csv") for name in ("events", "looks", "lost"))
    return f"{hour_table(events)}\n\n{sentence(looks, lost)}"


PARTS = [
    Part(
        "docs/kubernetes.md",
        "faults",
        ["data/kubernetes-faults.jsonl"],
        lambda path: table(path.read_text().splitlines()),
    ),
    Part("CONTRIBUTING.md", "fault hour", ["data/recorded-faults"], hour),
]
