"""Functions that the Snakefile calls: run a notebook, fingerprint its code, fetch and check inputs."""

from faro_lib.pipeline.check import check
from faro_lib.pipeline.dependencies import fingerprint, modules_of
from faro_lib.pipeline.fetch import fetch
from faro_lib.pipeline.notebook import run_notebook

__all__ = ["check", "fetch", "fingerprint", "modules_of", "run_notebook"]
