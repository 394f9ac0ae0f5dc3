"""Policies by name. A new policy is one file and one `@register("Name")` on a function that makes it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faro_lib.policies.base import Policy
from faro_lib.workload import Job


@dataclass(frozen=True, slots=True)
class Kit:
    """What a policy may be made from.

    forecaster : fitted on training days only; None if there is none.
    performance : a measured latency table (`queueing.MeasuredPerformance`), or None.
    """

    jobs: tuple[Job, ...]
    forecaster: Any = None
    performance: Any = None

    def need(self, part: str, policy: str):
        value = getattr(self, part)
        if value is None:
            raise ValueError(f"policy {policy!r} needs a {part}; the kit that it is made from has none")
        return value


MAKERS: dict[str, Callable[[Kit], Policy]] = {}


def register(name: str):
    """Enter the function below as the maker of policy `name`."""

    def enter(maker):
        if name in MAKERS:
            raise ValueError(f"policy {name!r} is registered already")
        MAKERS[name] = maker
        return maker

    return enter


def make(name: str, kit: Kit) -> Policy:
    """The policy of that name."""
    if name not in MAKERS:
        near = difflib.get_close_matches(name, MAKERS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"accepted: {', '.join(MAKERS)}"
        raise ValueError(f"policy={name!r} is unknown; {hint}")
    return MAKERS[name](kit)
