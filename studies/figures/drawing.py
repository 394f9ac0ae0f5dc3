"""A figure of a stage, with its title and its caption."""

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure with its title and a caption that begins with the finding."""

    figure: Figure
    title: str
    caption: str
    recorded: bool = False  # whether the data are from an earlier run


Drawings = Mapping[str, Drawing]  # file name without suffix -> figure
