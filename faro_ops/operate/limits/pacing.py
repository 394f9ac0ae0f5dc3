"""Policies with another time between two ticks."""

from dataclasses import replace
from typing import Any

from faro_lib.policies.loops import TwoLoops
from faro_lib.protocol import Policy


def paced(policy: Policy, tick_s: float, **changes: Any) -> Policy:
    """A copy of `policy` with another `tick_s`, and with the fields in `changes`.

    In a `TwoLoops`, `interval_s` is rounded to a whole number of ticks.
    """
    if not tick_s > 0:
        raise ValueError(f"tick_s={tick_s!r} must be a number > 0")
    if tick_s == policy.tick_s:
        return replace(policy, **changes)  # type: ignore[type-var]
    if isinstance(policy, TwoLoops):
        interval_s = tick_s * max(1, round(policy.interval_s / tick_s))
        changes = dict(first_s=tick_s, interval_s=interval_s, phase_s=0.0) | changes
    return replace(policy, tick_s=tick_s, **changes)  # type: ignore[type-var]
