"""Policies by name. `@register("Name")` on a factory function adds a policy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from faro_lib.forecast import Forecaster
from faro_lib.protocol import Policy
from faro_lib.queueing import ModelLike
from faro_lib.registry import Registry
from faro_lib.workload import Job, Traces


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """The inputs of a policy factory."""

    jobs: tuple[Job, ...]
    forecaster: Forecaster | None = None  # fitted on training days only
    # Measured (see `simulate.measure`), or a function that measures when a policy needs the model.
    latency_model: ModelLike | None = None
    # Training days. Counts of the evaluation day become 0, so that no policy knows them.
    traces: Traces | None = None

    def __post_init__(self) -> None:
        if self.traces:
            known = replace(self.traces, evaluation=0 * self.traces.evaluation, arrival_s=())
            object.__setattr__(self, "traces", known)

    def require(self, part: str, policy: str) -> Any:
        """The attribute `part`; ValueError if it is None."""
        value = getattr(self, part)
        if value is None:
            raise ValueError(f"policy {policy!r} needs {part}; its context has none")
        return value


PolicyFactory = Callable[[PolicyContext], Policy]
FACTORIES: Registry[PolicyFactory] = Registry("policy")
_FAMILIES: dict[str, tuple[Callable[[str], bool], Callable[[str], PolicyFactory]]] = {}


def register(name: str) -> Callable[[PolicyFactory], PolicyFactory]:
    """Decorator that registers a factory as policy `name`."""
    return partial(FACTORIES.enter, name)


def register_family(
    prefix: str, accepts: Callable[[str], bool], factory: Callable[[str], PolicyFactory]
) -> None:
    """Register a family: policy `prefix + member` gets `factory(member)` if `accepts(member)`."""
    _FAMILIES[prefix] = accepts, factory


def factory_of(name: str) -> PolicyFactory:
    """The factory of the policy `name`; ValueError with the nearest known name if it is unknown."""
    if not FACTORIES.knows(name):
        for prefix, (accepts, factory) in _FAMILIES.items():
            member = name.removeprefix(prefix)
            if member != name and accepts(member):
                return factory(member)
    return FACTORIES.find(name)


def make(name: str, context: PolicyContext) -> Policy:
    """Make the policy `name`."""
    return factory_of(name)(context)
