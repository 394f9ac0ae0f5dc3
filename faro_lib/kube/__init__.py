"""Faro on Kubernetes: Deployments, capacity, leader election, the custom resource FaroPlan, and manifests."""
