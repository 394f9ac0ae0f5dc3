"""`Cluster` on Kubernetes: Deployments, capacity, leader election, the FaroPlan, and manifests."""
