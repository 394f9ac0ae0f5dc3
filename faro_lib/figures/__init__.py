"""Style and saving of figures. The pipeline's figures are in studies/figures."""

from faro_lib.figures.style import save_all, use_style

__all__ = ["save_all", "use_style"]
