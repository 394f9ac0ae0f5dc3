"""Notebook 40: what do relaxed utilities and exact solvers gain?"""
