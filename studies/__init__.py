"""Experiments, a folder each: its world, run, tables and figures.

`tables` and `figures` have what several of them share, `paper` Faro as published, `bayes` the model
of demand, and `report` the page of a run.
"""
