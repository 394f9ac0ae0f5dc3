"""Measure running services: service times, cold starts, and how replicas process requests."""
