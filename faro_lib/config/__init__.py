"""The configuration of the pipeline: its schema, and how files and the command line are read into it."""

from faro_lib.config.parse import default_yaml, load, reference_md
from faro_lib.config.schema import PUBLISHED_DAYS, PUBLISHED_JOBS, Config
from faro_lib.workload import PUBLISHED, SYNTHETIC

__all__ = [
    "PUBLISHED",
    "PUBLISHED_DAYS",
    "PUBLISHED_JOBS",
    "SYNTHETIC",
    "Config",
    "default_yaml",
    "load",
    "reference_md",
]
