"""Kubernetes: what capacity there is, who of several controllers acts, and two ways to act."""
