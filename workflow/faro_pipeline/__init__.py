"""Functions of the pipeline: check a configuration, fetch inputs, fingerprint a notebook's code, and run a notebook."""

from faro_pipeline.check import check
from faro_pipeline.dependencies import fingerprint, modules_of
from faro_pipeline.fetch import fetch
from faro_pipeline.notebook import run_notebook

__all__ = ["check", "fetch", "fingerprint", "modules_of", "run_notebook"]
