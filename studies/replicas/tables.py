"""The table and the figure of live services and their twins in docs/replicas.md."""

from __future__ import annotations

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from studies.tables.pages import Part, Picture
from studies.tables.wording import markdown_table


def table(runs: pd.DataFrame) -> str:
    """A row per load and service: p99 latency of each trial, live and simulated, and ratios."""
    rows = []
    for (load, service), one in runs.groupby(["load", "service"], sort=False):
        columns = [one["live_p99_s"], one["twin_p99_s"], one["live_p99_s"] / one["twin_p99_s"]]
        columns.append(one["live_rps"] / one["twin_rps"])
        cells = [", ".join(f"{value:.2f}" for value in column) for column in columns]
        rows.append((service, f"{one['requests_per_s'].iloc[0]:.0f}", f"{load:.0%}", *cells))
    heads = ["service", "requests/s", "load", "live p99 (s)", "twin p99 (s)"]
    heads += ["p99, live / twin", "throughput, live / twin"]
    return markdown_table(heads, rows, right=["requests/s", "load"])


def picture(runs: pd.DataFrame) -> Figure:
    """One panel per service: p99 latency by rate, a marker for each live run and its twin."""
    services = runs["service"].unique()
    figure, axes = plt.subplots(1, len(services), figsize=(PAGE_IN, 2.3))
    for axis, service in zip(axes, services):
        one = runs[runs["service"] == service]
        step = one["requests_per_s"].max() / 120  # the trials side by side, the twin beside its run
        for environment, colour, marker, aside in (
            ("live", CYCLE[0], "o", 0),
            ("twin", CYCLE[1], "x", step),
        ):
            x = one["requests_per_s"] + 3 * step * (one["trial"] - one["trial"].mean()) + aside
            dots = {"color": colour, "markersize": 4, "label": environment}
            axis.plot(x, one[f"{environment}_p99_s"], marker, **dots)
        top = one[["live_p99_s", "twin_p99_s"]].max(axis=None)
        axis.set(title=service, xlabel="requests/s", ylim=(0, 1.15 * top))
    axes[0].set(ylabel="p99 latency (s)")
    legend_above(figure, *axes[0].get_legend_handles_labels())
    return figure


RUNS = ["data/live-twins.csv"]
PARTS = [Part("docs/replicas.md", "live services and their twins", RUNS, table)]
PICTURES = [Picture("docs/images/twins.png", RUNS, picture)]
