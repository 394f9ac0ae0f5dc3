"""The style of all figures: widths of a two-column paper, text of at least 8 pt, colour-blind-safe colours; saving."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

COLUMN_IN, PAGE_IN = 3.4, 7.0  # widths of a column and of the page in inches
FONT_PT = 8
DPI = 220  # resolution of PNG files

# Colours differ by at least 18 in CIELAB for every kind of colour vision, and are far from white (tests/test_style.py). A
# hatch, marker or label repeats what a colour says.
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
SPARE = ("#7B1A3D", "#1A466D", "#E1AEEF")  # colours of policies from plugins
CYCLE = ("#0072B2", "#D45E00", "#00CF72", "#8569F1", "#E3B300", "#D873A4", "#7F7C5D")

# Keyword arguments of matplotlib.
DIAMOND: dict[str, Any] = {"marker": "D", "ls": "", "ms": 3, "mfc": "white", "mec": "black"}
EDGE: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.3}
LIMIT_LINE: dict[str, Any] = {"color": LIMIT, "linestyle": "--"}
MEASURES = {"lost_utility": "lost cluster utility", "slo_violation_rate": "SLO violation rate"}
CLAIRVOYANT = "clairvoyant limit"
DIAMONDS = " Diamonds: published values; losses are in the published convention."


def as_published(measures: Mapping[str, str]) -> dict[str, str]:
    """`measures` (column -> label), with the columns of losses replaced by those in the published convention."""
    return {f"{name}_published" if "lost" in name else name: label for name, label in measures.items()}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure, its title, and its caption, which begins with the finding; `recorded`: drawn from data of another run."""

    figure: Figure
    title: str
    caption: str
    recorded: bool = False


Drawings = Mapping[str, Drawing]  # file name without suffix -> figure


def trials_note(summary: pd.DataFrame, by: list[str]) -> str:
    """A sentence on the number of trials per group of the columns `by` (the smallest), e.g. "One trial."."""
    trials = summary.groupby(by)["trial"].nunique().min()
    return f"Mean over {trials} trials; whiskers: one standard deviation." if trials > 1 else "One trial."


def and_list(words: Iterable[object]) -> str:
    """The words as a list in English.

    >>> and_list([36, 32, 16]), and_list(["a"])
    ('36, 32 and 16', 'a')
    """
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def reference_handles(published: bool, limit: bool) -> tuple[list, list[str]]:
    """Legend handles and labels of the clairvoyant limit and the published values."""
    handles = [Line2D([], [], **LIMIT_LINE)] if limit else []
    handles += [Line2D([], [], **DIAMOND)] if published else []
    return handles, [CLAIRVOYANT] * limit + ["published (EuroSys'25)"] * published


def colour(name: str, palette: Mapping[str, str] = COLOURS) -> str:
    """The colour of a name in the palette, or one of SPARE. A policy and its variant " (paper)" share a colour."""
    own = palette.get(name.removesuffix(" (paper)"))
    return own or SPARE[zlib.crc32(name.encode()) % len(SPARE)]


def lost_by_policy(axis: Axes, summary: pd.DataFrame, x: str) -> None:
    """Draw mean lost utility by column `x`, a line per policy (dashed: "(paper)"), with one standard deviation as whisker."""
    for marker, (policy, rows) in zip("os^Dvph", summary.groupby("policy", sort=False)):
        lost = rows.groupby(x)["lost_utility"]
        line = {"marker": marker, "markersize": 3, "label": policy, "linestyle": "--" if "(paper" in policy else "-"}
        axis.errorbar(lost.mean().index, lost.mean(), yerr=lost.std().fillna(0), color=colour(policy), **line)


def label_log_axis(axis: Axis, low: float, high: float) -> None:
    """Label 1, 2 and 5 times the powers of ten between `low` and `high`; only the powers if the range is wide."""
    steps = (1, 2, 5) if high < 30 * low else (1,)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
    ticks = [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()


def use_style() -> None:
    """Make this style the default of seaborn and matplotlib."""
    sns.set_theme(
        context="paper",
        style="whitegrid",
        palette=[*CYCLE, *SPARE],
        rc={
            **dict.fromkeys(("font.size", "legend.fontsize", "legend.title_fontsize"), FONT_PT),
            **dict.fromkeys(("axes.labelsize", "axes.titlesize", "xtick.labelsize", "ytick.labelsize"), FONT_PT),
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
        legend = figure.legend(handles, labels, loc="outside upper center", ncols=ncols, frameon=False)
        if legend.get_window_extent().width <= figure.bbox.width or ncols == 1:
            return
        legend.remove()


def save(figure: Figure, directory: str | Path, name: str) -> Path:
    """Write `name`.pdf and `name`.png reproducibly, and return the path of the PNG; ValueError if not legible."""
    check_legible(figure, name)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figure.savefig(directory / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(directory / f"{name}.png", metadata={"Software": None})
    return directory / f"{name}.png"


def save_all(drawings: Drawings, captions: str | Path) -> None:
    """Write every figure into the folder of the file `captions`, and then titles and captions to that file, as JSON."""
    for name, drawing in drawings.items():
        save(drawing.figure, Path(captions).parent, name)
    texts = {
        name: {"title": one.title, "caption": one.caption, "recorded": one.recorded} for name, one in drawings.items()
    }
    Path(captions).write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")


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
