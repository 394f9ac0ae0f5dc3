"""Options shared by several commands, and the format of their output."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from faro_ops.cli.from_model import option_of
from faro_ops.http import CA_FILE
from faro_ops.run_options import RunOptions

DEFAULT_POLICY = "Faro-Sum"
LEFT = (
    "policy",
    "job",
    "reason",
    "case",
    "gpu",
    "model",
)  # columns that `text_table` aligns to the left


def option(help: str, *names: str, default: str | None = None, maximum: int | None = None) -> Any:
    """A typer option.

    `default` is the default shown in the help. With `maximum`, valid values are 1 to `maximum`.
    """
    return typer.Option(
        *names, help=help, show_default=default or True, min=1 if maximum else None, max=maximum
    )


cores = partial(option, maximum=1_000_000)  # an option whose value is a number of cores


def use_authority(path: str) -> None:
    """Make this process trust the certificate authority in the PEM file `path`."""
    if not Path(path).is_file():
        raise ValueError(f"ca_file={path!r}: no such file; a PEM file with certificates")
    os.environ[CA_FILE] = path


AtRandom = Annotated[
    bool,
    option(
        "Assume requests at random times of their minute, whatever a log or the table says.",
        "--at-random",
    ),
]
OptionalJobs = Annotated[
    str | None, option("Table of jobs with SLOs and service times, .yaml or .csv.")
]
PolicyName = Annotated[str, option_of(RunOptions, "policy")]
NoLearning = Annotated[bool, option_of(RunOptions, "no_learning")]
Address = Annotated[str | None, option_of(RunOptions, "address")]
ServeAddress = Annotated[str | None, option_of(RunOptions, "serve_address")]
PrometheusAddress = Annotated[str | None, option_of(RunOptions, "prometheus")]
PrometheusToken = Annotated[str | None, option_of(RunOptions, "prometheus_token")]
ArrivalsQuery = Annotated[str | None, option("PromQL for requests per minute, one series per job.")]
JobLabel = Annotated[str | None, option("Label of the series that names the job.")]
Plugins = Annotated[
    list[str] | None, option("Python file that registers your extensions; repeatable.")
]


def text_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Format rows, which all have the same keys, as a text table with a header line."""
    columns = []
    for name in rows[0]:
        cells = [name, *(str(row[name]) for row in rows)]
        align = str.ljust if name in LEFT else str.rjust
        width = max(map(len, cells))
        columns.append([align(cell, width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns))


def number(value: float, spec: str) -> str:
    """A number in the format `spec`; "-" for NaN (unknown)."""
    return "-" if math.isnan(value) else format(value, spec)


def milliseconds(value_s: float | None, infinite: str = "unbounded") -> str:
    """A latency as text: `infinite` for None or infinity (an unstable queue), "-" if unknown."""
    if value_s is None or math.isinf(value_s):
        return infinite
    return "-" if math.isnan(value_s) else f"{1000 * value_s:.0f} ms"


def check_one_source(workload: str | None, prometheus: str | None, journal: str | None) -> None:
    """Raise ValueError unless exactly one source of recorded load is given."""
    if sum(source is not None for source in (workload, prometheus, journal)) != 1:
        raise ValueError("give one of --workload FILE, --prometheus URL and --journal FILE")


def check_picture(path: Path) -> None:
    """Raise an error if matplotlib is missing or `path` cannot be written.

    Commands call this before a long computation.
    """
    import matplotlib  # noqa: F401

    from faro_ops.files import check_writable

    if path.suffix not in (".png", ".html"):
        raise ValueError(f"plot={str(path)!r} is not a picture; accepted: a .png or a .html file")
    if not path.parent.is_dir():
        raise ValueError(
            f"plot={str(path)!r}: there is no folder {str(path.parent)!r}; make it, or name another"
        )
    check_writable(path.parent.absolute())


def write_picture(path: Path, draw: Callable[[], Any], title: str, text: str) -> None:
    """Draw a figure and write it to `path`: a .png, or an .html page with `text` below it."""
    from faro_lib.figures.style import use_style
    from faro_lib.files import atomic_write
    from faro_ops.cli.figure_page import page_of

    use_style()
    figure = draw()
    with atomic_write(path) as partial:
        if path.suffix == ".png":
            figure.savefig(partial)
        else:
            partial.write_text(page_of(figure, title, text), encoding="utf-8")
