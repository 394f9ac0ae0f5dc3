"""The configuration of the pipeline."""

from faro_lib.config.parse import default_yaml, load, reference_md
from faro_lib.config.schema import PUBLISHED_DAYS, PUBLISHED_JOBS, Config

__all__ = ["PUBLISHED_DAYS", "PUBLISHED_JOBS", "Config", "default_yaml", "load", "reference_md"]
