"""One style for every figure: widths of a two-column paper, nothing under 8 pt, colours that the colour-blind tell apart."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN_IN, PAGE_IN = 3.4, 7.0  # widths of one column and of the page
FONT_PT = 8

# Any two lie at least 20 apart in CIELAB, also for protanopes, deuteranopes and tritanopes (tests/test_style.py), and far
# enough from white; a hatch, marker or label tells the same a second time.
COLOURS = {
    "FairShare": "#7F9F86",
    "Oneshot": "#E9923C",
    "AIAD": "#EABA00",
    "MArk": "#B97CAA",
    "HPA": "#C2C5CA",
    "RayServe": "#7E6D49",
    "Cilantro": "#000000",
    "Faro-Sum": "#0072B2",
    "Faro-FairSum": "#00D27C",
    "Faro-Fair": "#B15900",
    "Faro-PenaltySum": "#56A2FE",
    "Faro-PenaltyFairSum": "#7A4CD7",
}
LIMIT = "#971713"  # the clairvoyant limit
PUBLISHED = "#000000"
SPARE = ("#7B1A3D", "#1A466D", "#E1AEEF")  # for what plugins add
# For whatever has no colour of its own; in this order, and then the spare ones.
CYCLE = ("#0072B2", "#D45E00", "#00CF72", "#8569F1", "#E3B300", "#D873A4", "#7F7C5D")


def colour(name: str, palette: Mapping[str, str] = COLOURS) -> str:
    """The colour of a policy or of another name of a palette; the paper's edition of Faro has that of ours."""
    own = palette.get(name.removesuffix(" (paper)"))
    return own or SPARE[zlib.crc32(name.encode()) % len(SPARE)]


def use_style() -> None:
    """Make this style seaborn's and matplotlib's default."""
    import seaborn as sns

    sns.set_theme(
        context="paper",
        style="whitegrid",
        palette=[*CYCLE, *SPARE],
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


def legend_above(figure: Figure, handles, labels, columns: int = 5) -> None:
    """One legend above all panels, in as many columns, but no more than that, as fit into the width of the figure."""
    for ncols in range(min(columns, len(labels)), 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=ncols, frameon=False)
        if legend.get_window_extent().width <= figure.bbox.width or ncols == 1:
            return
        legend.remove()


def save(figure: Figure, directory: str | Path, name: str) -> Path:
    """Write `name`.pdf and `name`.png; the same figure gives the same bytes. Returns the PNG's path.

    Refused are figures that print would make illegible: wider than a page, or with text under 8 pt.
    """
    legible(figure, name)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(directory / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(directory / f"{name}.png", metadata={"Software": None})
    return directory / f"{name}.png"


def legible(figure: Figure, name: str) -> None:
    """A ValueError if the figure is wider than a page, so that it would be shrunk, or has text under 8 pt."""
    from matplotlib.text import Text

    width_in = figure.get_size_inches()[0]
    if width_in > PAGE_IN + 1e-9:
        raise ValueError(f"figure {name!r}: width {width_in:g} in; at most a page, {PAGE_IN:g} in")
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and float(text.get_fontsize()) < FONT_PT:
            raise ValueError(
                f"figure {name!r}: {text.get_text()!r} has {text.get_fontsize():g} pt; at least {FONT_PT} pt"
            )
