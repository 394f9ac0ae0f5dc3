"""Options that several commands have, and how commands print."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

DEFAULT_POLICY = "Faro-Sum"
LEFT = ("policy", "job", "reason")  # columns of text; numbers are aligned to the right

Jobs = Annotated[str, typer.Option(help="Table of jobs, a .yaml or .csv file.")]
OptionalJobs = Annotated[str | None, typer.Option(help="Table of jobs with SLOs and service times, .yaml or .csv.")]
Policy = Annotated[str, typer.Option(help="Name of the policy.")]
Capacity = Annotated[int, typer.Option(help="Cores of the cluster.")]
Address = Annotated[str | None, typer.Option(help="Address of Ray's dashboard, http://host:8265.")]
ServeAddress = Annotated[
    str | None, typer.Option(help="Address of Ray Serve's applications.  [default: port 8000 of the same host]")
]
Prometheus = Annotated[str | None, typer.Option(help="Address of the Prometheus server to query, http://host:9090.")]
PrometheusToken = Annotated[str | None, typer.Option(help="File with a bearer token for Prometheus.")]
Plugins = Annotated[list[str] | None, typer.Option(help="Python file that registers your extensions; repeatable.")]


def say(line: str) -> None:
    """Print progress on standard error, where it does not mix with results."""
    print(line, file=sys.stderr, flush=True)


def text_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as aligned columns below their names."""
    columns = [[name, *(row[name] for row in rows)] for name in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    aligned = ["<" if column[0] in LEFT else ">" for column in columns]
    lines = zip(*columns)
    return "\n".join("  ".join(map(format, line, map("{}{}".format, aligned, widths))).rstrip() for line in lines)


def milliseconds(value_s: float | None) -> str:
    """A latency as text; `unbounded` for a queue that grows without end, `-` where it is unknown."""
    if value_s is None or value_s == float("inf"):
        return "unbounded"
    return "-" if value_s != value_s else f"{1000 * value_s:.0f} ms"
