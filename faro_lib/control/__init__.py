"""The control loop: observe a simulated or real cluster, let a policy plan, limit its plan by guardrails, and apply it."""

from faro_lib.control.clamp import Pending, clamp_to_capacity
from faro_lib.control.guardrails import GUARDRAILS, GuardrailConfig
from faro_lib.control.tick import Memory, PolicyFailed, Step, tick

__all__ = [
    "GUARDRAILS",
    "GuardrailConfig",
    "Memory",
    "Pending",
    "PolicyFailed",
    "Step",
    "clamp_to_capacity",
    "tick",
]
