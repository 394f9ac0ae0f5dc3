"""The cluster on Ray Serve: replicas, their statistics, deployment and load.

Nothing heavy is imported here: replicas import this package when they start.
"""
