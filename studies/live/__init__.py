"""Notebooks 80 and 81: experiments on real replicas, and how well the simulation agrees."""
