"""`faro export`: a journal as JSON lines, which other programs and all commands of Faro read."""

from typing import Annotated

import typer


def export(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run`.")],
) -> None:
    """Print a journal as JSON lines: the header of each part, and its ticks with all fields.

    All commands that read a journal read a file of these lines, too.
    """
    from faro_ops.journal.lines import exported_lines
    from faro_ops.journal.reading import recorded

    header = None
    for of_part, tick in recorded(journal):
        for line in exported_lines(of_part, tick, begins=of_part is not header):
            print(line)
        header = of_part
