"""Notebook 20: how far off are latency formulas and the measured table?"""
