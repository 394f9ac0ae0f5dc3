"""Recommend replicas for the coming minutes, and compute the capacity that the SLOs need."""
