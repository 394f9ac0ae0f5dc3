"""Experiments: each module runs one, and returns the tables that its figures are drawn from."""
