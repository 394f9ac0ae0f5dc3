"""Functions to style and save figures, and the figures of the command line; notebooks/figures has the pipeline's."""

from faro_lib.figures.style import save_all, use_style

__all__ = ["save_all", "use_style"]
