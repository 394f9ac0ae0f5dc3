"""One function per figure, from tables to a matplotlib Figure, with its caption beside it; one module per stage.

`draw` of a stage's module draws all figures of the stage from the tables under results/<workload>/.
"""

from faro_lib.figures.style import save_all, use_style

__all__ = ["save_all", "use_style"]
