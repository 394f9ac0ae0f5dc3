"""Live: the same control loop over real requests on Ray Serve, the load that it is tested with, and its journal.

Nothing heavy is imported here: replicas import this package when they start.
"""
