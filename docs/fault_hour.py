"""The table of the hour on kind in docs/reliability.md, from the tables that the hour wrote.

FARO_SOAK=$PWD/data/recorded-faults make test-faults && python docs/fault_hour.py
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import marked

from studies.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reliability.md"
EVENTS = ROOT / "data/recorded-faults/events.csv"
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


def recorded() -> list[dict[str, str]]:
    """The rows of the recorded hour; [] if none has been recorded."""
    if not EVENTS.exists():
        return []
    with EVENTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def with_table(page: str, rows: Iterable[Mapping[str, str]]) -> str:
    """The page with its table replaced."""
    return marked.with_table(page, MARK, table(rows))


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), recorded()))
    print(PAGE)
