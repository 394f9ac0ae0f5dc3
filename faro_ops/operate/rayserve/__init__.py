"""Deploy, observe and scale jobs on Ray Serve.

This file imports nothing, because every replica imports it.
"""
