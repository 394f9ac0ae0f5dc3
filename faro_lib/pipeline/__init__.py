"""What the Snakefile calls: run a notebook, know what it depends on, fetch and check inputs."""

from faro_lib.pipeline.check import check
from faro_lib.pipeline.dependencies import modules_of
from faro_lib.pipeline.fetch import checksums, fetch, fetch_and_record
from faro_lib.pipeline.notebook import run_notebook

__all__ = ["check", "checksums", "fetch", "fetch_and_record", "modules_of", "run_notebook"]
