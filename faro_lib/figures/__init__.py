"""Style and saving of all figures, and the figures of the commands; notebooks/ has those of the pipeline's stages."""

from faro_lib.figures.style import save_all, use_style

__all__ = ["save_all", "use_style"]
