"""`Cluster` on Kubernetes: measured capacity, leader election, Deployments, and manifests."""
