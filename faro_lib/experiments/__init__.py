"""Experiments: runs of policies on the same trials, and the clairvoyant limit of a trial."""
