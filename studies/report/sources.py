"""Where a figure is made: the line of code that draws it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# `"policies": Drawing(` in the dictionary of a stage's module, or `figures["curve"] = Drawing(`.
DRAWN = re.compile(r"\"(\w+)\"(?:: |\] = )Drawing\(")


def line_of(module: str, figure: str) -> str | None:
    """The line that draws a figure, as `studies/traces/figures.py:21`, or None.

    `module` is the name of the stage's module of figures.

    >>> line_of("studies.queueing.figures", "half_wait").partition(":")[0]
    'studies/queueing/figures.py'
    """
    file = f"{module.replace('.', '/')}.py"
    if not (ROOT / file).exists():
        return None
    for number, line in enumerate((ROOT / file).read_text().splitlines(), start=1):
        if figure in DRAWN.findall(line):
            return f"{file}:{number}"
    return None
