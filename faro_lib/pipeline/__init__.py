"""Functions of the pipeline: check a configuration, fetch inputs, fingerprint a notebook's code, and run a notebook."""

from faro_lib.pipeline.check import check
from faro_lib.pipeline.dependencies import fingerprint, modules_of
from faro_lib.pipeline.fetch import fetch
from faro_lib.pipeline.notebook import run_notebook

__all__ = ["check", "fetch", "fingerprint", "modules_of", "run_notebook"]
