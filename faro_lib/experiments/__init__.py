"""Experiments: each module runs one and returns its tables of results."""
