"""The table of faults in docs/kubernetes.md, from the rows that the fault tests recorded.

    FARO_FAULTS=$PWD/data/kubernetes-faults.jsonl make test-faults && python docs/faults.py

The file may hold several rows of a fault; the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import marked

from studies.tables.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/kubernetes.md"
ROWS = ROOT / "data/kubernetes-faults.jsonl"
MARK = "faults: docs/faults.py writes this table"


def table(lines: Iterable[str]) -> str:
    """A row per fault, in the order in which the faults were first recorded."""
    faults = {row["fault"]: row for row in map(json.loads, lines)}
    rows = [
        (one["fault"], one["sent"], one["failed"], f"{one['whole_s']:.0f}")
        for one in faults.values()
    ]
    heads = ["fault", "requests sent", "failed", "seconds until all is as before"]
    return markdown_table(heads, rows)


def with_table(page: str, lines: Iterable[str]) -> str:
    """The page with its table replaced."""
    return marked.with_table(page, MARK, table(lines))


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(), ROWS.read_text().splitlines()))
    print(PAGE)
