"""One function a figure: data frame in, Figure out; one style."""

from faro_lib.figures.style import save, use_style

__all__ = ["save", "use_style"]
