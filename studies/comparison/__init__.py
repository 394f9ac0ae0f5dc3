"""Notebooks 50 and 90: which policy wins on the same trials? (docs/comparison.md)"""
