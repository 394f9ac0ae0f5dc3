"""Notebook 75: is the lead the same on several days and workloads? (docs/elsewhere.md)"""
