"""Notebook 10: how many requests does each job get, and do they fit the capacity?"""
