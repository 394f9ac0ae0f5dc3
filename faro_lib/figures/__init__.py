"""Figures with titles and captions. One module per stage; its function `draw` draws all figures of the stage."""

from faro_lib.figures.style import save_all, use_style

__all__ = ["save_all", "use_style"]
