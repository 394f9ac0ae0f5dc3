"""What the remaining loss is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from faro_lib.experiments.remaining import ALL, AS_IS, CONSTANT, FORECAST, IDEALS, MOVES, START
from faro_lib.experiments.remaining import LIMIT as CLAIRVOYANT
from faro_lib.figures.captions import NONE_PUBLISHED
from faro_lib.figures.style import COLOURS, COLUMN_IN, LIMIT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def remaining(parts: pd.DataFrame) -> Figure:
    """Lost utility with each part ideal, a bar each; `parts` is that of `metrics.remaining`."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(COLUMN_IN, 2.2))
    shade = {AS_IS: "#0072B2", CONSTANT: "#C2C5CA", CLAIRVOYANT: LIMIT}
    parts = parts[::-1]
    bars = axis.barh(
        parts["part"],
        parts["lost_utility"],
        color=[shade.get(part, COLOURS["Faro-PenaltySum"]) for part in parts["part"]],
    )
    axis.bar_label(bars, fmt="%.2f", padding=2)
    axis.margins(x=0.12)
    axis.set_xlabel("lost cluster utility")
    axis.grid(axis="y", visible=False)
    return figure


def remaining_caption(parts: pd.DataFrame, policy: str, replicas: int) -> str:
    lost = parts.set_index("part")["lost_utility"]
    saved = {part: lost[AS_IS] - lost[part] for part in (START, FORECAST, MOVES)}
    told = ", ".join(f"{part}: {IDEALS[part]} (saves {gain:.3f})" for part, gain in saved.items())
    return (
        f"What {policy} loses at {replicas} replicas, {lost[AS_IS]:.2f} in one trial, with one part ideal at a time. {told}. "
        f"With all three {lost[ALL]:.2f} remain: the best allocation of every minute loses {lost[CONSTANT]:.2f} at constant "
        f"rates, as requests do not come evenly; only the clairvoyant, who knows how each minute's fall, loses "
        f"{lost[CLAIRVOYANT]:.2f}. {NONE_PUBLISHED}"
    )
