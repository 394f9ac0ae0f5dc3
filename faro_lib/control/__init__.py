"""The control loop: observe a cluster, plan, limit the plan by guardrails, and apply it."""

from faro_lib.control.clamp import Pending, clamp_to_capacity
from faro_lib.control.guardrails import GUARDRAILS, GuardrailConfig
from faro_lib.control.loop import run
from faro_lib.control.tick import Late, Memory, PolicyFailed, Step, tick

__all__ = [
    "GUARDRAILS",
    "GuardrailConfig",
    "Late",
    "Memory",
    "Pending",
    "PolicyFailed",
    "Step",
    "clamp_to_capacity",
    "run",
    "tick",
]
