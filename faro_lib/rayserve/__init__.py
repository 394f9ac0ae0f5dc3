"""Jobs on Ray Serve: replicas, statistics, deployment, load. This file imports nothing, because every replica imports it."""
