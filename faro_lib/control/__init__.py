"""One control loop for every policy and any `Cluster`, simulated or live: guardrails, capacity, journal, metrics."""

from faro_lib.control.clamp import Pending, clamp_to_capacity, growth
from faro_lib.control.guardrails import GUARDRAILS, GuardrailConfig
from faro_lib.control.loop import run
from faro_lib.control.tick import Memory, PolicyFailed, Step, tick

__all__ = [
    "GUARDRAILS", "GuardrailConfig", "Memory", "Pending", "PolicyFailed", "Step", "clamp_to_capacity", "growth", "run",
    "tick",
]  # fmt: skip
