"""Faro: SLO-aware autoscaling of ML inference jobs on one fixed-size cluster (docs/concepts.md)."""

__version__ = "0.1.0"
