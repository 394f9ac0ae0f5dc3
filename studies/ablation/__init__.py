"""Notebook 60: what does each step of the paper gain, and which part of the loss remains?"""
