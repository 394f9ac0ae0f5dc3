"""`Cluster` on Ray Serve, with its replicas, statistics, deployment and load. Replicas import it: no heavy imports."""
