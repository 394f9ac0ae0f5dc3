"""The configuration of the pipeline: the settings and the check of a user's values."""

from faro_pipeline.settings.parse import default_yaml, load, reference_md, schema_json
from faro_pipeline.settings.schema import Config

__all__ = ["Config", "default_yaml", "load", "reference_md", "schema_json"]
