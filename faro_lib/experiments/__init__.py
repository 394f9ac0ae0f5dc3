"""Simulated experiments: several policies run on the same requests, and a clairvoyant bound on their utility."""
