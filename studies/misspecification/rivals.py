"""Rivals with several settings, and replicas that never change, in the worlds of `world`.

The settings of a rival are chosen on the last training day in the same world, by the search of
`studies.rivals.tuning`.
"""

from dataclasses import replace
from typing import Any

import pandas as pd

from faro_lib.experiments.trials import run_trials, trial_seeds
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.workload import Traces
from studies.forecast.remembered import remembered
from studies.misspecification.world import TRAINING_SEED, World, lost_by_block, lost_later
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
    key = {"world": world.name, "capacity_cores": capacity}
    if rival == STATIC:
        policy, tried = make(STATIC, context), pd.DataFrame()
    else:
        policy, tried = at_its_best(RIVALS[rival], traces, context, world, capacity)
        tried = tried.assign(rival=rival, **key)
    workload = traces.workload()
    draws = (world.draws(workload, seed) for seed in trial_seeds(trials))
    rows = []
    model = world.serving_model
    for trial in run_trials(workload, {rival: policy}, capacity, draws, serving_model=model):
        row = key | {"policy": rival, "trial": trial.number}
        row |= summarize(trial.run, published=True) | {"lost_later": lost_later(trial.run)}
        row |= {f"lost_{n}": lost for n, lost in enumerate(lost_by_block(trial.run))}
        rows.append(row)
    return pd.DataFrame(rows), tried


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

    def of(setting: Setting) -> Policy:
        whole: dict[str, Any] = {
            name: int(value) for name, value in setting.items() if name.endswith("_minutes")
        }
        return rival.make(context, **setting | whole)

    def loss(setting: Setting) -> float:
        policies, model = {"rival": of(setting)}, world.serving_model
        (trial,) = run_trials(workload, policies, capacity, [draws], serving_model=model)
        return summarize(trial.run)["lost_utility"]

    found = search(rival.settings, rival.start, loss)
    table = tried_table(found, rival.settings)
    best, _ = found[int(table["chosen"].argmax())]
    names = [", ".join(f"{name} {value:g}" for name, value in one.items()) for one, _ in found]
    return of(best), table[["lost_utility", "chosen"]].assign(candidate=names)
