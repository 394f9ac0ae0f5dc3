"""Policies: pure functions from an observation of the cluster to a plan."""

from faro_lib.policies.baselines import AIAD, FairShare, Fixed, Oneshot
from faro_lib.policies.cilantro import Cilantro
from faro_lib.policies.factories import FACTORIES, PolicyContext, factory_of, make, register
from faro_lib.policies.faro import Faro
from faro_lib.policies.paper import MArk, PaperFaro
from faro_lib.policies.platforms import HPA, RayServe
from faro_lib.policies.protocol import Cluster, Observation, Plan, Policy

__all__ = [
    "AIAD", "FACTORIES", "HPA", "Cilantro", "Cluster", "FairShare", "Faro", "Fixed", "MArk", "Observation", "Oneshot",
    "PaperFaro", "Plan", "Policy", "PolicyContext", "RayServe", "factory_of", "make", "register",
]  # fmt: skip
