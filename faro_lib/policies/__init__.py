"""Policies: pure functions from an observation of the cluster to a plan."""

from faro_lib.policies.baselines import AIAD, FairShare, Fixed, MArk, Oneshot
from faro_lib.policies.factories import FACTORIES, PolicyContext, factory_of, make, register
from faro_lib.policies.faro import Faro
from faro_lib.policies.platforms import HPA, RayServe
from faro_lib.policies.static import Static
from faro_lib.protocol import Cluster, Observation, Plan, Policy

__all__ = [
    "AIAD",
    "FACTORIES",
    "HPA",
    "Cluster",
    "FairShare",
    "Faro",
    "Fixed",
    "MArk",
    "Observation",
    "Oneshot",
    "Plan",
    "Policy",
    "PolicyContext",
    "RayServe",
    "Static",
    "factory_of",
    "make",
    "register",
]
