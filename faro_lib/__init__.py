"""Faro: SLO-aware autoscaling of many ML inference jobs that share one fixed cluster.

Everything a decision needs is one table, the expected utility of giving job j x replicas; see docs/concepts.md.
Modules are imported where they are used, so that `import faro_lib` costs nothing.
"""

__version__ = "0.1.0"
