"""Figures with titles and captions, drawn from tables; one module per stage, whose `draw` returns all of them."""

from faro_lib.figures.style import save_all, use_style

__all__ = ["save_all", "use_style"]
