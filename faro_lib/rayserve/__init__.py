"""`Cluster` on Ray Serve: replicas, statistics, deployment, load. Imports nothing, because every replica imports this file."""
