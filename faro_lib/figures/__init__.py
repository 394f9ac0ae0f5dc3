"""Style and saving of figures. Those of a stage are in studies/<stage>/figures.py."""

from faro_lib.figures.style import use_style

__all__ = ["use_style"]
