"""The tables of measurements in README.md and docs/ that no recorded table is behind.

A table of numbers is either a `Part` that an experiment declares, or has above it a comment
`<!-- not recorded: COMMAND -->` with the command that measured it. The latter are listed in
docs/artifact.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from studies.tables.pages import END, ROOT, WRITTEN, Part
from studies.tables.wording import markdown_table

COMMAND = re.compile(r"\s*<!-- not recorded: (.+) -->")
NUMBER = re.compile(r"\**[<+±-]?\d")  # the begin of a cell that has a number
WORD = re.compile(r"[A-Za-z]{2,}")
MAX_WORDS = 2  # of a cell with a number, such as a unit; a cell with more is text
SHARE = 0.4  # share of the cells of a table of numbers that have one


class Table(NamedTuple):
    """A table in a page, and what is behind it: an experiment, a command, or nothing."""

    page: str  # its path from the top
    section: str
    line: int  # from 1
    numbers: bool  # whether it is a table of numbers
    module: str | None
    command: str | None


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def tables(page: str, text: str) -> Iterator[Table]:
    """The Markdown tables of a page with the path `page`."""
    lines = text.splitlines()
    section, module, command, fenced = "", None, None, False
    above = ""  # the line before, if it belongs to a table
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if fenced:
            continue
        if line.startswith("#"):
            section = line.lstrip("# ")
        if written := WRITTEN.fullmatch(line):
            module = written[2]
        if line == END:
            module = None
        if noted := COMMAND.fullmatch(line):
            command = noted[1]
        in_table = line.lstrip().startswith("|")
        if in_table and not above:
            rows = []
            for row in lines[number + 1 :]:
                if not row.lstrip().startswith("|"):
                    break
                rows.append(row)
            yield Table(page, section, number, has_numbers(rows), module, command)
        if line.strip() and not in_table and not noted:
            command = None  # a comment belongs to the table right below it
        above = line if in_table else ""


def has_numbers(rows: list[str]) -> bool:
    """Whether rows of a table, without its head, have mostly numbers after the first column.

    >>> has_numbers(["| a | 1.5 | 20 % |"]), has_numbers(["| a | text | 1 |", "| b | text | c |"])
    (True, False)
    """
    cells = [cell.strip() for row in rows for cell in row.strip().strip("|").split("|")[1:]]
    short = [cell for cell in cells if len(WORD.findall(cell)) <= MAX_WORDS]
    numbers = [cell for cell in short if NUMBER.match(cell)]
    return len(numbers) >= max(2, SHARE * len(cells))


def every_table() -> list[Table]:
    return [
        table
        for page in pages()
        for table in tables(str(page.relative_to(ROOT)), page.read_text())
        if table.numbers
    ]


def listed(found: list[Table]) -> str:
    """A row per section whose tables of numbers have a command only."""
    commands = {
        (f"[{table.page.removeprefix('docs/')}]({_address(table.page)})", table.section): (
            table.command
        )
        for table in found
        if table.command
    }
    rows = [(*key, command) for key, command in commands.items()]
    return markdown_table(["page", "section", "measured by"], rows)


def _address(page: str) -> str:
    return page.removeprefix("docs/") if page.startswith("docs/") else f"../{page}"


PARTS = [Part("docs/artifact.md", "unrecorded", ["docs"], lambda _: listed(every_table()))]
