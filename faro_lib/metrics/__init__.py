"""Measures of finished runs, paired comparison of policies, and the clairvoyant limit."""
