"""How many replicas a promise needs, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.figures.style import COLOURS, COLUMN_IN, LIMIT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def capacity_curve(
    curve: pd.DataFrame, violations: float, knee: int | None = None, needed: int | None = None
) -> Figure:
    """SLO violations by cluster size, the rate that is wanted, the knee and the size that is needed.

    Parameters
    ----------
    curve : columns replicas, slo_violation_rate.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.3))
    rate = curve.set_index("capacity_cores")["slo_violation_rate"]
    axis.plot(rate.index, 100 * rate, color=COLOURS["Faro-Sum"], marker="o", markersize=3)
    axis.axhline(100 * violations, color=LIMIT, linestyle="--", linewidth=1.0)
    said = notes(violations, knee, needed)
    for size, above_pt in zip(said, (22, 9)[-len(said) :]):  # the two are often neighbours: a line of text for each
        axis.plot(
            size, 100 * rate[size], "D" if size == knee else "s", color="black", markersize=5, markerfacecolor="white"
        )
        axis.annotate(
            f"{said[size]}: {size}",
            (size, 100 * rate[size]),
            xytext=(5, above_pt),
            textcoords="offset points",
            bbox={"color": "white", "pad": 0.5},
        )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="capacity (cores)", ylabel="SLO violations (%)", ylim=(-2, None))
    return figure


def notes(violations: float, knee: int | None = None, needed: int | None = None) -> dict[int, str]:
    """What there is to say of a size; one note where a size is both.

    >>> notes(0.01, knee=12, needed=12), notes(0.05, knee=None, needed=16)
    ({12: 'knee, keeps 1 %'}, {16: 'keeps 5 %'})
    """
    said: dict[int, str] = {}
    for size, what in ((knee, "knee"), (needed, f"keeps {100 * violations:g} %")):
        if size is not None:
            said[size] = f"{said[size]}, {what}" if size in said else what
    return said


def bars(curve: pd.DataFrame, notes: dict[int, str], width: int = 40) -> str:
    """The same for a terminal: a line a size, with a bar and what there is to say of it.

    >>> print(bars(pd.DataFrame({"capacity_cores": [8, 16], "slo_violation_rate": [0.5, 0.01]}), {16: "keeps 1 %"}, 8))
           8  ████████ 50.0 %
          16  ▏ 1.0 %  <- keeps 1 %
    """
    most = max(curve["slo_violation_rate"].max(), 1e-9)
    lines = []
    for row in curve.itertuples():
        eighths = max(round(8 * width * row.slo_violation_rate / most), int(row.slo_violation_rate > 0))
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        note = f"  <- {notes[row.capacity_cores]}" if row.capacity_cores in notes else ""
        lines.append(f"{row.capacity_cores:8d}  {bar} {100 * row.slo_violation_rate:.1f} %{note}")
    return "\n".join(lines)
