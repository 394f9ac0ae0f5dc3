"""The picture of the README: the comparison on the published traces (`make readme`)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from faro_lib.figures.style import check_legible, use_style
from faro_lib.files import atomic_write
from notebooks.figures.comparison import policies_by_capacity, published_main

SHOWN = ["FairShare", "Oneshot", "AIAD", "MArk", "Faro-Sum (paper)", "Faro-Sum"]
RESULTS, PUBLISHED, PICTURE = "results/faro-10jobs/simulate", "data/published", "docs/images/comparison.png"


def headline(summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Lost utility of the best-known policies and of both variants of Faro-Sum."""
    ranked = summary.assign(rank=summary["policy"].map(dict(zip(SHOWN, range(len(SHOWN))))))
    shown = ranked.dropna(subset="rank").sort_values("rank", kind="stable")
    return policies_by_capacity(shown, limit, published, {"lost_utility": "lost cluster utility (of 10)"})


if __name__ == "__main__":
    use_style()
    summary, limit = (pd.read_csv(Path(RESULTS) / f"{name}.csv") for name in ("summary", "limit"))
    figure = headline(summary, limit, published_main(PUBLISHED))
    check_legible(figure, "headline")
    with atomic_write(PICTURE) as partial:
        figure.savefig(partial, metadata={"Software": None})
    print(PICTURE)
