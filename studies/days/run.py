"""Policies on several days of a workload, each with forecasters fitted to the days before it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.limits import clairvoyants
from faro_lib.experiments.trials import Report, run_trials, trial_draws
from faro_lib.metrics.measures import minute_utility, slo_violation_rate
from faro_lib.metrics.paired import unit_interval
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces

# Minutes of simulated time in a block. Differences of the loss between policies are correlated over
# up to half an hour.
BLOCK_MINUTES = 60
MIN_BLOCKS = 4  # on a day that is shorter than four blocks
DAYS, BLOCKS = "days", "blocks"  # units of an interval
MIN_DAYS = 3  # days from which days, not blocks, are the units of an interval
CLAIRVOYANT = "clairvoyant"
RUN = ["day", "capacity_cores", "policy", "trial"]  # the columns that identify a run


def over_days(
    traces: Traces,
    days: Sequence[int],
    capacities: Sequence[int],
    policies: Sequence[str],
    trials: int,
    *,
    forecasters: Sequence[str] = ("auto",),
    report: Report = print,
) -> pd.DataFrame:
    """Run every policy on each day: one row per run and block.

    The clairvoyant runs in the first trial only.

    Parameters
    ----------
    days : day numbers, from 2 to traces.days + 1 (the evaluation day).
    forecasters : all policies use the first. The last policy also runs with each of the rest, as
        "policy, forecaster".

    Returns
    -------
    Columns day, capacity_cores, policy, trial, block, minutes, lost (sum of 1 - utility over jobs
    and minutes) and slo_violation_rate (of the run).
    """
    rows = []
    latency_model = measure(traces.jobs)
    for day in days:
        judged = traces if day == traces.days + 1 else traces.until(day)
        contexts = [
            PolicyContext(traces.jobs, forecast.fit(name, judged), latency_model, traces=judged)
            for name in forecasters
        ]
        made = {name: make(name, contexts[0]) for name in policies}
        for name, context in zip(forecasters[1:], contexts[1:]):
            made[f"{policies[-1]}, {name}"] = make(policies[-1], context)
        workload = judged.workload()
        for capacity in capacities:
            for trial in run_trials(workload, made, capacity, trial_draws(workload, trials)):
                utility = minute_utility(trial.run)
                violated = slo_violation_rate(trial.run)
                rows.append((*trial.key.values(), day, utility, violated))
            report(f"day {day}, {capacity} cores: {len(made)} policies, {trials} trials")
        bests = clairvoyants(workload, next(trial_draws(workload, 1)), capacities)
        for capacity, best in zip(capacities, bests):
            rows.append((CLAIRVOYANT, capacity, 0, day, best.utility, np.nan))
    return pd.concat([_blocks(*row) for row in rows], ignore_index=True)


def _blocks(policy, capacity, trial, day, utility, violated) -> pd.DataFrame:
    """The table of one run, from its utility (jobs, minutes + 1); the last minute is not full."""
    of_minute = np.nansum(1 - utility[:, :-1], axis=0)
    lost = np.array_split(of_minute, max(MIN_BLOCKS, len(of_minute) // BLOCK_MINUTES))
    values = {
        "block": range(len(lost)),
        "minutes": [len(part) for part in lost],
        "lost": [part.sum() for part in lost],
    }
    key = {"day": day, "capacity_cores": capacity, "policy": policy, "trial": trial}
    return pd.DataFrame(key | values | {"slo_violation_rate": violated})


def paired(blocks: pd.DataFrame, leader: str) -> pd.DataFrame:
    """Lost utility of each policy minus that of `leader`, with intervals of `unit_interval`.

    The units of an interval over MIN_DAYS days or more are days. Otherwise they are blocks, and the
    interval speaks of these days only.

    Columns day ("all", or a single day), capacity_cores, policy, lost_utility, slo_violation_rate,
    difference, low, high, units (DAYS or BLOCKS).
    """
    rows = []
    for (capacity, policy), part in blocks.groupby(["capacity_cores", "policy"], sort=False):
        reference = blocks[(blocks["capacity_cores"] == capacity) & (blocks["policy"] == leader)]
        reference = reference[reference["trial"].isin(part["trial"])]
        for day in ["all", *part["day"].unique()]:
            ours, theirs = part, reference
            if day != "all":
                ours, theirs = ours[ours["day"] == day], theirs[theirs["day"] == day]
            lost, minutes = _by_block(ours, "lost"), _by_block(ours, "minutes")
            difference, low, high = unit_interval(
                *by_units(lost - _by_block(theirs, "lost"), minutes)
            )
            rows.append(
                {
                    "day": str(day),
                    "capacity_cores": capacity,
                    "policy": policy,
                    "lost_utility": lost.sum() / minutes.sum(),
                    "slo_violation_rate": ours.groupby(RUN)["slo_violation_rate"].first().mean(),
                    "difference": difference,
                    "low": low,
                    "high": high,
                    "units": DAYS if len(lost) >= MIN_DAYS else BLOCKS,
                }
            )
    return pd.DataFrame(rows)


def by_units(differences: np.ndarray, minutes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays (days, trials, blocks) as `unit_interval` takes them: (strata, trials, units)."""
    if len(differences) < MIN_DAYS:
        return differences, minutes
    return differences.sum(axis=2).T[None], minutes.sum(axis=2).T[None]


class Tally(NamedTuple):
    """Comparisons by outcome. A clear outcome has an interval that excludes zero."""

    less: int  # the leader loses less than the other policy
    equal: int
    more: int
    clearly_less: int
    clearly_more: int


def tally(pairs: pd.DataFrame) -> Tally:
    """Count the comparisons in the rows of `paired`, in both directions.

    >>> pairs = {"difference": [0.3, 0.1, 0.0], "low": [0.1, -0.2, 0.0], "high": [0.5, 0.4, 0.0]}
    >>> tally(pd.DataFrame(pairs))
    Tally(less=2, equal=1, more=0, clearly_less=1, clearly_more=0)
    """
    outcomes = (
        pairs["difference"] > 0,
        pairs["difference"] == 0,
        pairs["difference"] < 0,
        pairs["low"] > 0,
        pairs["high"] < 0,
    )
    return Tally(*(int(outcome.sum()) for outcome in outcomes))


def _by_block(table: pd.DataFrame, column: str) -> np.ndarray:
    """A column as an array (days, trials, blocks)."""
    shape = table["day"].nunique(), table["trial"].nunique(), table["block"].nunique()
    return table.sort_values(["day", "trial", "block"])[column].to_numpy().reshape(shape)
