"""Recommend replicas for the coming minutes, give reasons, and compute the capacity that the SLOs need."""
