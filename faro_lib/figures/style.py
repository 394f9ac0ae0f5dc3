"""One style for every figure: widths of a two-column paper, nothing under 8 pt, colours that the colour-blind tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN_IN, PAGE_IN = 3.4, 7.0  # widths of one column and of the page
FONT_PT = 8

# Okabe and Ito's palette; a hatch or marker always tells the same thing a second time.
COLOURS = {
    "FairShare": "#999999",
    "Oneshot": "#E69F00",
    "AIAD": "#D4C200",
    "MArk": "#CC79A7",
    "HPA": "#B0C4DE",
    "RayServe": "#7F6D5F",
    "Cilantro": "#000000",
    "Faro-Sum": "#0072B2",
    "Faro-FairSum": "#009E73",
    "Faro-Fair": "#D55E00",
    "Faro-PenaltySum": "#56B4E9",
    "Faro-PenaltyFairSum": "#7B4EA3",
}
LIMIT = "#CC3311"  # the clairvoyant limit
PUBLISHED = "#000000"


def colour(policy: str) -> str:
    """A policy's colour; the paper's edition of Faro has that of ours."""
    return COLOURS.get(policy.removesuffix(" (paper)"), "#444444")


def use_style() -> None:
    """Make this style seaborn's and matplotlib's default."""
    import seaborn as sns

    sns.set_theme(
        context="paper",
        style="whitegrid",
        rc={
            "font.size": FONT_PT,
            "axes.labelsize": FONT_PT,
            "axes.titlesize": FONT_PT,
            "xtick.labelsize": FONT_PT,
            "ytick.labelsize": FONT_PT,
            "legend.fontsize": FONT_PT,
            "legend.title_fontsize": FONT_PT,
            "figure.titlesize": FONT_PT + 1,
            "lines.linewidth": 1.2,
            "axes.linewidth": 0.6,
            "grid.linewidth": 0.4,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.dpi": 110,
            "savefig.dpi": 220,
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
        },
    )


def save(figure: Figure, directory: str | Path, name: str) -> Path:
    """Write `name`.pdf and `name`.png; the same figure gives the same bytes. Returns the PNG's path."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(directory / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(directory / f"{name}.png", metadata={"Software": None})
    return directory / f"{name}.png"
