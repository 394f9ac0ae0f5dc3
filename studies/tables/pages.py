"""The tables, sentences and pictures of pages that are computed from recorded runs.

    python -m studies.tables.pages                   # all
    python -m studies.tables.pages sharing families  # those of some experiments

The module `tables` of an experiment declares them: PARTS has what stands in pages between a comment
`<!-- NAME: studies/EXPERIMENT/tables.py writes this -->` and END, PICTURES the pictures.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from faro_lib.figures.style import check_legible, use_style
from faro_lib.files import atomic_write

ROOT = Path(__file__).parents[2]
END = "<!-- end of table -->"
WRITTEN = re.compile(r"^ *<!-- (.+): (studies/[\w/]+\.py) writes this -->$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """A table or some sentences of a page, by the name in its comment.

    `text` makes it of `files`, recorded files or folders by their paths from the top: a CSV is
    passed as a data frame, JSON as its content, everything else as a path.
    """

    page: str
    name: str
    files: Sequence[str]
    text: Callable[..., str]


@dataclass(frozen=True)
class Picture:
    """A picture of docs/images; `draw` makes it of `files`, which are as those of a `Part`."""

    path: str
    files: Sequence[str]
    draw: Callable[..., Figure]


class Declared(NamedTuple):
    """What a module declares."""

    module: str  # its path from the top
    parts: Sequence[Part]
    pictures: Sequence[Picture]


def declaring() -> Iterator[Declared]:
    """All modules that declare parts of pages; the list of what is not recorded is the last."""
    tables = (ROOT / "studies").rglob("tables.py")
    for path in [*sorted(tables), Path(__file__).with_name("unrecorded.py")]:
        name = path.relative_to(ROOT).as_posix()
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        if hasattr(module, "PARTS"):
            yield Declared(name, module.PARTS, getattr(module, "PICTURES", []))


def content(path: str) -> Any:
    """A recorded file as `Part` says."""
    file = ROOT / path
    if file.suffix == ".csv":
        return pd.read_csv(file)
    return json.loads(file.read_text()) if file.suffix == ".json" else file


def text_of(part: Part) -> str:
    return part.text(*map(content, part.files))


def shown(page: str, module: str, name: str) -> str:
    """What stands in a page after the comment of a part.

    Raises ValueError if the page has no such comment, or has it twice.
    """
    return _around(page, module, name)[1].strip()


def with_part(page: str, module: str, name: str, text: str) -> str:
    """The page with one part replaced."""
    before, _, after = _around(page, module, name)
    return f"{before}\n{text}\n\n{after}"


def _around(page: str, module: str, name: str) -> tuple[str, str, str]:
    """The page up to the comment of a part, the part, and the page from END on."""
    comment = f"<!-- {name}: {module} writes this -->\n"
    if page.count(comment) != 1:
        raise ValueError(f"a page has the comment {comment.strip()!r} {page.count(comment)} times")
    before, rest = page.split(comment)
    part, after = rest.split(END, 1)
    return before + comment, part, END + after


def write(declared: Declared) -> None:
    """Write the parts into their pages, and the pictures."""
    for part in declared.parts:
        page = ROOT / part.page
        text = with_part(page.read_text(), declared.module, part.name, text_of(part))
        with atomic_write(page) as partial:
            partial.write_text(text)
    use_style()
    for picture in declared.pictures:
        figure = picture.draw(*map(content, picture.files))
        check_legible(figure, Path(picture.path).stem)
        with atomic_write(ROOT / picture.path) as partial:
            figure.savefig(partial, metadata={"Software": None})


def main(*experiments: str) -> int:
    """Write what these experiments declare, or all. Returns the exit status."""
    found = {Path(declared.module).parent.name: declared for declared in declaring()}
    if unknown := [name for name in experiments if name not in found]:
        print(f"{unknown[0]}: no such experiment; accepted: {', '.join(found)}", file=sys.stderr)
        return 2
    for name in experiments or found:
        write(found[name])
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
