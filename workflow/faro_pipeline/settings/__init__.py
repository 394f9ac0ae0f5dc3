"""The configuration of the pipeline: settings with defaults, the check of a user's values, and a reference page."""

from faro_pipeline.settings.parse import default_yaml, load, reference_md
from faro_pipeline.settings.schema import PUBLISHED_DAYS, PUBLISHED_JOBS, Config

__all__ = ["PUBLISHED_DAYS", "PUBLISHED_JOBS", "Config", "default_yaml", "load", "reference_md"]
