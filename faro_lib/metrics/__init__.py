"""Measures of finished runs, and paired comparison of policies."""
