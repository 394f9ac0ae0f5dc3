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
class PolicyContext:
    """What a policy may be made from.

    forecaster : fitted on training days only; None if there is none.
    latency_model : a measured latency table (`queueing.LatencyTable`), or None.
    """

    jobs: tuple[Job, ...]
    forecaster: Any = None
    latency_model: Any = None

    def require(self, part: str, policy: str):
        value = getattr(self, part)
        if value is None:
            raise ValueError(f"policy {policy!r} needs a {part}; the context that it is made from has none")
        return value


PolicyFactory = Callable[[PolicyContext], Policy]
FACTORIES: Registry[PolicyFactory] = Registry("policy")


def register(name: str):
    """Enter the function below as the factory of policy `name`."""

    def enter(factory: PolicyFactory) -> PolicyFactory:
        return FACTORIES.enter(name, factory)

    return enter


def factory_of(name: str) -> PolicyFactory:
    """The factory of policy `name`; for every registered objective, whoever registered it, there is `Faro-<objective>`."""
    objective = name.removeprefix("Faro-")
    if not FACTORIES.knows(name) and objective != name and OBJECTIVES.knows(objective):
        from faro_lib.policies.faro import chosen

        return lambda context: chosen(context, objective)
    return FACTORIES.find(name)


def make(name: str, context: PolicyContext) -> Policy:
    """The policy of that name."""
    return factory_of(name)(context)
