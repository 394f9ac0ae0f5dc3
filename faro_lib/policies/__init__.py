"""Policies: pure functions from what was observed to what should be."""

from faro_lib.policies.base import Cluster, Observation, Plan, Policy
from faro_lib.policies.baselines import AIAD, FairShare, Oneshot

__all__ = ["AIAD", "Cluster", "FairShare", "Observation", "Oneshot", "Plan", "Policy"]
