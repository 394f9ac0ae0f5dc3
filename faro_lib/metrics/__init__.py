"""Measures of finished runs, their tables and files, and the clairvoyant limit."""
