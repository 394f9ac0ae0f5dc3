"""The table of the hour on kind in docs/reliability.md, from the tables that the hour wrote.

FARO_SOAK=$PWD/data/recorded-faults make test-faults && python docs/fault_hour.py
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import marked

from studies.tables.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reliability.md"
FOLDER = ROOT / "data/recorded-faults"
MARK = "fault hour: docs/fault_hour.py writes this table"
NOT_YET = "The hour has not been recorded yet."


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """A row per event, in the order in which they happened; NOT_YET without rows."""
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
    return markdown_table(heads, lines) if lines else NOT_YET


def sentence(looks: Sequence[Mapping[str, str]], lost: Sequence[Mapping[str, str]]) -> str:
    """How long the run was, what it lost, and how busy the machine was; "" without looks."""
    if not looks:
        return ""
    minutes = float(looks[-1]["at_s"]) / 60
    loads = [float(look["load"]) for look in looks]
    middle, most = statistics.median(loads), max(loads)
    return (
        f"Recorded in {minutes:.0f} minutes. Requests that failed, also between the events:"
        f" {len(lost)}. Other programs shared the machine, whose load per core was {middle:.1f} in"
        f" the median, {most:.1f} at most."
    )


def recorded(table: str) -> list[dict[str, str]]:
    """The rows of a table of the recorded hour; [] if none has been recorded."""
    path = FOLDER / table
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def with_table(page: str) -> str:
    """The page with the table and the sentence of the recorded hour."""
    parts = [table(recorded("events.csv")), sentence(recorded("looks.csv"), recorded("lost.csv"))]
    return marked.with_table(page, MARK, "\n\n".join(filter(None, parts)))


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
    print(PAGE)
