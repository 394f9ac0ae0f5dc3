"""The comparison of policies on the same trials at one capacity, with the clairvoyant limit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from faro_lib.experiments.limits import clairvoyants
from faro_lib.experiments.trials import Report, run_trials, trial_draws
from faro_lib.metrics.measures import lost_utility, lost_utility_published
from faro_lib.policies import Policy
from faro_lib.simulate import Draws
from faro_lib.workload import Workload
from studies.tables.frames import Tables, joined
from studies.tables.run_tables import by_minute, running_by_minute, tables_of, with_key


def compare(
    workload: Workload,
    policies: Mapping[str, Policy],
    capacity: int,
    trials: int,
    *,
    limit: bool = True,
    published: bool = False,
    report: Report | None = print,
) -> Tables:
    """Run every policy on the same trials (`trials.run_trials`) and return all tables.

    Parameters
    ----------
    capacity : cores.
    limit : whether to compute the clairvoyant limit of every trial.
    published : whether to add measures in the published convention, such as
        `lost_utility_published`.
    """
    runs = run_trials(workload, policies, capacity, trial_draws(workload, trials), report=report)
    parts = []
    for trial in runs:
        running = by_minute(workload.jobs, running=running_by_minute(trial.run))
        tables = tables_of(trial.run, trial.key, published)
        parts.append(replace(tables, running=with_key(running, trial.key)))
    for number, requests in enumerate(trial_draws(workload, trials if limit else 0)):
        (best,) = clairvoyants(workload, requests, (capacity,))
        key = {"capacity_cores": capacity, "trial": number}
        measures = pd.DataFrame([key | _measures(best.utility, published)])
        minutes = by_minute(best.jobs, running=best.replicas, utility=best.utility)
        parts.append(Tables(limit=measures, clairvoyant=with_key(minutes, key)))
    return joined(parts)


def _measures(utility, published: bool) -> dict[str, float]:
    """The lost utility and, if `published`, a second value in the convention of the paper."""
    measures = {"lost_utility": lost_utility(utility)}
    if published:
        measures["lost_utility_published"] = lost_utility_published(utility)
    return measures


def limits_of(
    workload: Workload, draws: Draws, capacities: Sequence[int], *, published: bool = False
) -> pd.DataFrame:
    """The clairvoyant limit of the first trial, one row per capacity.

    Columns capacity_cores, trial and the measures.
    """
    best = clairvoyants(workload, draws, capacities)
    keys = [{"capacity_cores": size, "trial": 0} for size in capacities]
    return pd.DataFrame([key | _measures(one.utility, published) for key, one in zip(keys, best)])
