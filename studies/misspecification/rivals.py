"""Rivals with several settings, and replicas that never change, in the worlds of `world`.

The settings of a rival are chosen on the last training day in the same world, by the search of
`studies.rivals.tuning`.
"""

from dataclasses import replace
from typing import Any

import pandas as pd

from faro_lib.experiments.trials import run_trials
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.workload import Traces
from studies.forecast.remembered import remembered
from studies.misspecification.world import TRAINING_SEED, World, measured
from studies.rivals.autoscalers import RIVALS, Rival
from studies.rivals.tuning import Setting, search, tried_table

STATIC = "Static"
SEARCHED = ("KEDA, queue", "Predictive HPA", "MArk")


def added(
    traces: Traces, context: PolicyContext, world: World, capacity: int, trials: int, rival: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs of Static or of a rival of SEARCHED, and the settings that were tried.

    The columns are those of `world.compared`. Static has no settings.
    """
    if rival == STATIC:
        policy, tried = make(STATIC, context), pd.DataFrame()
    else:
        policy, tried = at_its_best(RIVALS[rival], traces, context, world, capacity)
        tried = tried.assign(rival=rival, world=world.name, capacity_cores=capacity)
    rows = measured(traces, {rival: policy}, world, capacity, range(trials))
    return pd.DataFrame(rows), tried


def as_chosen(
    context: PolicyContext, choices: pd.DataFrame, world: World, capacity: int
) -> dict[str, Policy]:
    """Static and the rivals of a world, with the settings that a table of choices says."""
    case = (choices["world"] == world.name) & (choices["capacity_cores"] == capacity)
    best = choices[case & choices["chosen"]].set_index("rival")["candidate"]
    policies = {STATIC: make(STATIC, context)}
    for rival, candidate in best.items():
        if rival in SEARCHED:
            policies[rival] = with_settings(RIVALS[rival], context, settings_of(candidate))
        else:
            policies[rival] = make(candidate, context)
    return policies


def at_its_best(
    rival: Rival, traces: Traces, context: PolicyContext, world: World, capacity: int
) -> tuple[Policy, pd.DataFrame]:
    """The rival with its best settings on the last training day, and all that were tried.

    Columns candidate, lost_utility, chosen.
    """
    assert context.forecaster is not None
    context = replace(context, forecaster=remembered(context.forecaster))
    workload = traces.workload(traces.days)
    draws = world.draws(workload, TRAINING_SEED)

    def loss(setting: Setting) -> float:
        policies, model = {"rival": with_settings(rival, context, setting)}, world.serving_model
        (trial,) = run_trials(workload, policies, capacity, [draws], serving_model=model)
        return summarize(trial.run)["lost_utility"]

    found = search(rival.settings, rival.start, loss)
    table = tried_table(found, rival.settings)
    best, _ = found[int(table["chosen"].argmax())]
    names = [candidate_of(one) for one, _ in found]
    tried = table[["lost_utility", "chosen"]].assign(candidate=names)
    return with_settings(rival, context, best), tried


def with_settings(rival: Rival, context: PolicyContext, setting: Setting) -> Policy:
    """The rival with these settings; those in minutes are whole numbers."""
    whole: dict[str, Any] = {
        name: int(value) for name, value in setting.items() if name.endswith("_minutes")
    }
    return rival.make(context, **setting | whole)


def candidate_of(setting: Setting) -> str:
    """The settings as a table of choices names them.

    >>> candidate_of({"target": 0.6, "window_minutes": 5})
    'target 0.6, window_minutes 5'
    """
    return ", ".join(f"{name} {value:g}" for name, value in setting.items())


def settings_of(candidate: str) -> dict[str, float]:
    """The inverse of `candidate_of`.

    >>> settings_of("target 0.6, window_minutes 5")
    {'target': 0.6, 'window_minutes': 5.0}
    """
    pairs = (part.rsplit(" ", 1) for part in candidate.split(", "))
    return {name: float(value) for name, value in pairs}
