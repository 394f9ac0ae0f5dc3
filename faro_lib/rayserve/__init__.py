"""`Cluster` on Ray Serve: replicas, statistics, deployment and load. Replicas import this package, so it imports little."""
