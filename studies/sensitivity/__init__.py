"""Notebook 65: which parameters does the margin over the best other policy depend on?"""
