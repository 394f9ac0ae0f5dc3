"""Autoscalers that read the gauges of language-model engines, and what can be tuned of them.

The entries of the arena's scenario llm-10-v1 (`llm_*.py` in this folder) have the settings that
`python -m studies.arena.llm_world --tune` chose with the public seed.
"""

from collections.abc import Callable, Sequence
from functools import partial

from faro_lib import forecast
from faro_lib.policies import Policy, PolicyContext
from studies.llm.rivals import LLM_RIVALS, PREDICTORS, DynamoPlanner
from studies.rivals.autoscalers import Rival


def dynamo(
    context: PolicyContext, name: str, load: float, interval_s: float, predictor: float
) -> Policy:
    """Our reading of the throughput-based scaling of Dynamo's planner."""
    fitted = forecast.fit(PREDICTORS[int(predictor)], context.require("traces", name))
    return DynamoPlanner(forecaster=fitted, load=load, interval_s=interval_s, name=name)


def _offered(
    rival: str, name: str, make: Callable[..., Policy] | None = None, **settings: Sequence[float]
) -> Rival:
    """A rival of docs/llm.md, with other values for some settings."""
    known = LLM_RIVALS[rival]
    named = partial(make or known.make, name=name)
    return Rival(named, {**known.settings, **settings}, known.start)


LONG_S = (60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)
TUNABLE: dict[str, Rival] = {
    "KEDA-waiting": _offered(
        "KEDA, waiting requests",
        "KEDA-waiting",
        goal=(0.1, 0.2, 0.5, 1.0, 2.0),
        stabilisation_s=LONG_S,
    ),
    "HPA-cache": _offered(
        "HPA, KV cache",
        "HPA-cache",
        goal=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08),
        stabilisation_s=LONG_S,
    ),
    "RayServe-llm": _offered(  # its rule is on ongoing requests, which are no gauge
        "Ray Serve",
        "RayServe-llm",
        ongoing=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
        down_after_s=LONG_S,
    ),
    "Dynamo": _offered("Dynamo planner", "Dynamo", dynamo, load=(0.1, 0.2, 0.3, 0.45, 0.65)),
}
