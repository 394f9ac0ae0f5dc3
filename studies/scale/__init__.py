"""Notebook 70: does the lead hold with more jobs, two models and other capacities?"""
