"""Policies by name. A new policy is one file and one `@register("Name")` on a function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faro_lib.allocate import OBJECTIVES
from faro_lib.policies.protocol import Policy
from faro_lib.registry import Registry
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


Maker = Callable[[Kit], Policy]
MAKERS: Registry[Maker] = Registry("policy")


def register(name: str):
    """Enter the function below as the maker of policy `name`."""

    def enter(maker: Maker) -> Maker:
        return MAKERS.enter(name, maker)

    return enter


def maker_of(name: str) -> Maker:
    """The maker of policy `name`; for every registered objective, whoever registered it, there is `Faro-<objective>`."""
    objective = name.removeprefix("Faro-")
    if not MAKERS.knows(name) and objective != name and OBJECTIVES.knows(objective):
        from faro_lib.policies.faro import chosen

        return lambda kit: chosen(kit, objective)
    return MAKERS.find(name)


def make(name: str, kit: Kit) -> Policy:
    """The policy of that name."""
    return maker_of(name)(kit)
