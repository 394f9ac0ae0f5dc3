"""Recommendations: replicas for the coming minutes with reasons, and the capacity that the SLOs need."""
