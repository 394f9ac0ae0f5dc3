"""The configuration of the pipeline: its schema, and how files and command line are read into it."""

from faro_lib.config.load import default_yaml, load
from faro_lib.config.schema import PUBLISHED, PUBLISHED_DAYS, PUBLISHED_JOBS, SYNTHETIC, Config, Section, Sensitivity

__all__ = [
    "PUBLISHED",
    "PUBLISHED_DAYS",
    "PUBLISHED_JOBS",
    "SYNTHETIC",
    "Config",
    "Section",
    "Sensitivity",
    "default_yaml",
    "load",
]
