"""Simulated experiments: policies on the same requests, and a bound on their utility."""
