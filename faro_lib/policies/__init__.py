"""Policies: pure functions from what was observed to what should be."""

from faro_lib.policies.baselines import AIAD, FairShare, Fixed, Oneshot
from faro_lib.policies.cilantro import Cilantro
from faro_lib.policies.faro import Faro
from faro_lib.policies.paper import MArk, PaperFaro
from faro_lib.policies.platforms import HPA, RayServe
from faro_lib.policies.protocol import Cluster, Observation, Plan, Policy
from faro_lib.policies.registry import MAKERS, Kit, make, maker_of, register

__all__ = [
    "AIAD",
    "HPA",
    "MAKERS",
    "Cilantro",
    "Cluster",
    "FairShare",
    "Faro",
    "Fixed",
    "Kit",
    "MArk",
    "Observation",
    "Oneshot",
    "PaperFaro",
    "Plan",
    "Policy",
    "RayServe",
    "make",
    "maker_of",
    "register",
]
