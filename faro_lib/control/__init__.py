"""The loop, admission and guardrails: the same for every policy, driven by any `Cluster`, simulated or live."""

from faro_lib.control.clamp import Pending, admit, growth
from faro_lib.control.guardrails import Guard, Limits, PolicyFailed, Rules
from faro_lib.control.loop import RULES, Memory, Step, run, turn

__all__ = [
    "RULES",
    "Guard",
    "Limits",
    "Memory",
    "Pending",
    "PolicyFailed",
    "Rules",
    "Step",
    "admit",
    "growth",
    "run",
    "turn",
]
