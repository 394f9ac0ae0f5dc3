"""`Cluster` on Ray Serve: replicas and their statistics, deployment, load. Replicas import it, so it stays light."""
