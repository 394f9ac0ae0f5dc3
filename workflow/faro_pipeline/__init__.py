"""Functions of the pipeline: check a configuration, fetch inputs, fingerprint code, run a notebook."""
