"""Code that only experiments need. Each module belongs to the notebooks that import it."""
