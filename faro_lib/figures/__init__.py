"""Style and saving of figures. The pipeline's figures are in studies/figures."""

from faro_lib.figures.style import use_style

__all__ = ["use_style"]
