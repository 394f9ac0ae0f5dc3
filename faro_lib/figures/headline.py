"""The picture of the README: the comparison on the published traces at a glance, `make readme`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.figures.captions import published_main
from faro_lib.figures.comparison import policies_by_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("FairShare", "Oneshot", "AIAD", "MArk", "Faro-Sum (paper)", "Faro-Sum")
RESULTS, PUBLISHED, PICTURE = "results/faro-10jobs/simulate", "data/published", "docs/images/comparison.png"


def headline(summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None) -> Figure:
    """Lost utility alone, of the policies that everybody knows and of Faro-Sum in both editions."""
    few = summary[summary["policy"].isin(SHOWN)].sort_values(
        "policy", key=lambda column: column.map(SHOWN.index), kind="stable"
    )
    floor = limit.groupby("capacity_cores", as_index=False).mean(numeric_only=True)
    return policies_by_size(few, floor, published, {"lost_utility": "lost cluster utility (of 10)"})


def main() -> None:
    from faro_lib.figures.style import legible, use_style
    from faro_lib.files import whole

    summary, limit = (pd.read_csv(Path(RESULTS) / f"{name}.csv") for name in ("summary", "limit"))
    use_style()
    figure = headline(summary, limit, published_main(PUBLISHED))
    legible(figure, "headline")
    with whole(PICTURE) as partial:
        figure.savefig(partial, metadata={"Software": None})
    print(PICTURE)


if __name__ == "__main__":
    main()
