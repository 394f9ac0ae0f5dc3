"""The pipeline: check its settings, fetch inputs, fingerprint code, and run a notebook."""
