"""Write the files that are made of the settings; `make config` runs this."""

from faro_pipeline.settings.parse import (
    DEFAULT_FILE,
    REFERENCE,
    SCHEMA_FILE,
    default_yaml,
    reference_md,
    schema_json,
)

if __name__ == "__main__":
    DEFAULT_FILE.write_text(default_yaml())
    REFERENCE.write_text(reference_md())
    SCHEMA_FILE.parent.mkdir(exist_ok=True)
    SCHEMA_FILE.write_text(schema_json())
