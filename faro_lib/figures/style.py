"""Style of all figures, and functions to save them.

Figures are as wide as a column or a page of a two-column paper. Text has at least 8 pt.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.text import Text

COLUMN_IN, PAGE_IN = 3.4, 7.0  # widths of a column and of the page in inches
FONT_PT = 8
DPI = 220  # resolution of PNG files

# Any two colours have a CIELAB distance of at least 18 for every kind of colour vision, and every
# colour is far from white (tests/studies/test_style.py). No figure relies on colour alone: hatches,
# markers or labels also tell the series apart.
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
LIMIT = "#971713"  # colour of limits in figures, such as the clairvoyant limit or an SLO
SPARE = ("#7B1A3D", "#1A466D", "#E1AEEF")  # colours of policies from plugins
CYCLE = ("#0072B2", "#D45E00", "#00CF72", "#8569F1", "#E3B300", "#D873A4", "#7F7C5D")
MEASURES = {"lost_utility": "lost cluster utility", "slo_violation_rate": "SLO violation rate"}


def colour(name: str, palette: Mapping[str, str] = COLOURS) -> str:
    """The palette's colour for `name` without the suffix " (paper)", or else a colour of SPARE."""
    spare = SPARE[zlib.crc32(name.encode()) % len(SPARE)]
    return palette.get(name.removesuffix(" (paper)"), spare)


def use_style() -> None:
    """Make this style the default of seaborn and matplotlib."""
    legends = ("font.size", "legend.fontsize", "legend.title_fontsize")
    axes = ("axes.labelsize", "axes.titlesize", "xtick.labelsize", "ytick.labelsize")
    sns.set_theme(
        context="paper",
        style="whitegrid",
        palette=[*CYCLE, *SPARE],
        rc={
            **dict.fromkeys((*legends, *axes), FONT_PT),
            "figure.titlesize": FONT_PT + 1,
            "lines.linewidth": 1.2,
            "axes.linewidth": 0.6,
            "grid.linewidth": 0.4,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.dpi": 110,
            "savefig.dpi": DPI,
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
        },
    )


def legend_above(figure: Figure, handles, labels, columns: int = 5) -> None:
    """Add one legend above all panels, no wider than the figure."""
    for ncols in range(min(columns, len(labels)), 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside upper center", ncols=ncols, frameon=False
        )
        if legend.get_window_extent().width <= figure.bbox.width or ncols == 1:
            return
        legend.remove()


def save(figure: Figure, directory: str | Path, name: str) -> Path:
    """Write `name`.pdf and `name`.png reproducibly, and return the path of the PNG.

    Raises ValueError if the figure is not legible.
    """
    check_legible(figure, name)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(directory / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(directory / f"{name}.png", metadata={"Software": None})
    return directory / f"{name}.png"


def check_legible(figure: Figure, name: str) -> None:
    """Raise ValueError if the figure is wider than a page or has text under 8 pt."""
    width_in = figure.get_size_inches()[0]
    if width_in > PAGE_IN + 1e-9:
        raise ValueError(f"figure {name!r}: width {width_in:g} in; at most a page, {PAGE_IN:g} in")
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text() and float(text.get_fontsize()) < FONT_PT:
            size = f"{text.get_text()!r} has {text.get_fontsize():g} pt"
            raise ValueError(f"figure {name!r}: {size}; at least {FONT_PT} pt")
