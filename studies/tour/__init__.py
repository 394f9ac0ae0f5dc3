"""Notebook 00: a tour of forecasts, the utility table, and prices."""
