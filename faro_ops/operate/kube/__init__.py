"""Faro on Kubernetes: Deployments, capacity, leader election, manifests, and the FaroPlan."""
