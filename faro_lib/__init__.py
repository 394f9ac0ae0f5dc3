"""Faro: SLO-aware autoscaling of ML inference jobs that share a fixed-size cluster (see docs/concepts.md)."""

__version__ = "0.1.0"
