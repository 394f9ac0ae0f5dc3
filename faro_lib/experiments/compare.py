"""Comparison of policies: every policy on the same trials at one capacity, and the clairvoyant limit."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from faro_lib.experiments.limits import clairvoyants
from faro_lib.experiments.trials import Report, run_trials, trial_draws
from faro_lib.metrics.frames import Tables, clairvoyant_frame, joined, running_frame, tables_of, with_key
from faro_lib.policies import Policy
from faro_lib.workload import Workload


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
    published : whether to add the measures as the paper defines them, such as `lost_utility_published`.
    """
    runs = run_trials(workload, policies, capacity, trial_draws(workload, trials), report=report)
    parts = [
        replace(tables_of(trial.run, trial.key, published), running=with_key(running_frame(trial.run), trial.key))
        for trial in runs
    ]
    for number, requests in enumerate(trial_draws(workload, trials if limit else 0)):
        (best,) = clairvoyants(workload, requests, (capacity,))
        key = {"capacity_cores": capacity, "trial": number}
        measures = pd.DataFrame([key | best.summary(published)])
        parts.append(Tables(limit=measures, clairvoyant=with_key(clairvoyant_frame(best), key)))
    return joined(parts)
