"""The table and the figure of live services and their twins in docs/replicas.md.

They come from data/live-twins.csv.
"""

from __future__ import annotations

from pathlib import Path

import marked
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, check_legible, legend_above, use_style
from faro_lib.files import atomic_write
from studies.tables.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/replicas.md"
RECORDED = ROOT / "data/live-twins.csv"
PICTURE = ROOT / "docs/images/twins.png"
MARK = "live services and their twins: docs/twins.py writes this table"


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
    use_style()
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


if __name__ == "__main__":
    runs = pd.read_csv(RECORDED)
    figure = picture(runs)
    check_legible(figure, PICTURE.stem)
    with atomic_write(PICTURE) as partial:
        figure.savefig(partial, metadata={"Software": None})
    PAGE.write_text(marked.with_table(PAGE.read_text(), MARK, table(runs)))
    print(PICTURE, PAGE)
