"""The HTML page with all figures and tables of a run."""
