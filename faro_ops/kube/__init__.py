"""Faro on Kubernetes: Deployments, capacity, leader election, manifests, and the resource FaroPlan (plans and overrides)."""
