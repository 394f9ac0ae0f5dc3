"""Write config/default.yaml and docs/configuration.md; `make config` runs this."""

from faro_pipeline.settings.parse import DEFAULT_FILE, REFERENCE, default_yaml, reference_md

if __name__ == "__main__":
    DEFAULT_FILE.write_text(default_yaml())
    REFERENCE.write_text(reference_md())
