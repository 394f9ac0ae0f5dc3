"""The loop, admission and guardrails: the same for every policy, driven by any `Cluster`, simulated or live."""

from faro_lib.control.clamp import Pending, admit, growth
from faro_lib.control.guardrails import Guard, GuardrailConfig, Limits, PolicyFailed
from faro_lib.control.loop import GUARDRAILS, Memory, Step, run, tick

__all__ = [
    "GUARDRAILS",
    "Guard",
    "GuardrailConfig",
    "Limits",
    "Memory",
    "Pending",
    "PolicyFailed",
    "Step",
    "admit",
    "growth",
    "run",
    "tick",
]
