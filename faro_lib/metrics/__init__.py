"""Measures of runs, their tables and files, and the clairvoyant limit. Nothing here runs a simulation."""
