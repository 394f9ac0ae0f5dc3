"""Rivals at their best: their settings are chosen on training days, for each workload and capacity.

All comparisons with tuned rivals use `tune`, which never sees the evaluation day.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, run_trials, trial_draws
from faro_lib.metrics.measures import lost_utility, minute_utility
from faro_lib.policies import Policy, PolicyContext
from faro_lib.queueing import ModelLike
from faro_lib.workload import Traces, Workload
from studies.forecast.remembered import remembered
from studies.rivals.autoscalers import RIVALS, Rival

Setting = dict[str, float]
# A day to tune on: what its policies know, and its requests.
Day = tuple[PolicyContext, Workload]


def training_days(
    traces: Traces, days: Sequence[int], latency_model: ModelLike, forecaster: str = "auto"
) -> list[Day]:
    """The inputs of each training day, with a forecaster fitted to the days before it."""
    inputs = []
    for day in days:
        until = traces.until(day)
        fitted = remembered(forecast.fit(forecaster, until))
        context = PolicyContext(traces.jobs, fitted, latency_model, traces=until)
        inputs.append((context, until.workload()))
    return inputs


def tune(
    days: Sequence[Day],
    capacities: Sequence[int],
    rivals: Mapping[str, Rival] = RIVALS,
    *,
    trials: int = 1,
    report: Report = print,
) -> pd.DataFrame:
    """Every setting that was tried, with its mean lost utility over `days` and `trials`.

    Columns rival, capacity_cores, lost_utility, chosen, at_edge (whether a chosen setting has the
    least or the largest value that was offered), and one per setting.
    """

    def loss_of(rival: Rival, capacity: int, setting: Setting) -> float:
        return mean_loss(days, partial(rival.make, **setting), capacity, trials)

    def say(name: str, capacity: int, own: Setting, lost: float) -> None:
        report(f"{name} at {capacity} cores: {own} loses {lost:.3f}")

    return searched(rivals, capacities, loss_of, say)


def searched(
    rivals: Mapping[str, Rival],
    capacities: Sequence[int],
    loss_of: Callable[[Rival, int, Setting], float],
    say: Callable[[str, int, Setting, float], None],
) -> pd.DataFrame:
    """The settings that `search` tries for each rival and capacity, with the columns of `tune`.

    loss_of : the loss of a rival with a setting at a capacity.
    say : told the chosen setting of each rival and capacity, and its loss.
    """
    frames = []
    for name, rival in rivals.items():
        for capacity in capacities:
            tried = search(rival.settings, rival.start, partial(loss_of, rival, capacity))
            table = tried_table(tried, rival.settings)
            table.insert(0, "rival", name)
            table.insert(1, "capacity_cores", capacity)
            best = table[table["chosen"]].iloc[0]
            own = {setting: float(best[setting]) for setting in rival.settings}
            say(name, capacity, own, float(best["lost_utility"]))
            frames.append(table)
    return pd.concat(frames, ignore_index=True)


def tried_table(
    tried: Sequence[tuple[Setting, float]], settings: Mapping[str, Sequence[float]]
) -> pd.DataFrame:
    """The settings that were tried, as rows; the first of those with the least loss is chosen."""
    losses = np.array([lost for _, lost in tried])
    result = {
        "lost_utility": losses,
        "chosen": np.arange(len(losses)) == losses.argmin(),
        "at_edge": [edges(setting, settings) for setting, _ in tried],
    }
    return pd.concat([pd.DataFrame(result), pd.DataFrame([one for one, _ in tried])], axis=1)


def search(
    settings: Mapping[str, Sequence[float]],
    start: Mapping[str, float],
    loss: Callable[[Setting], float],
) -> list[tuple[Setting, float]]:
    """All settings that coordinate descent tries, with their loss, in the order of trying.

    One setting at a time takes every second of its values. Then single settings move to the next
    smaller or larger value, until no such move lowers the loss.

    >>> tried = search({"x": (1, 2, 3)}, {"x": 1}, lambda setting: (setting["x"] - 2) ** 2)
    >>> min(tried, key=lambda one: one[1])
    ({'x': 2}, 0)
    """
    known: dict[tuple[float, ...], float] = {}

    def of(setting: Setting) -> float:
        key = tuple(setting[name] for name in settings)
        if key not in known:
            known[key] = loss(setting)
        return known[key]

    best = dict(start)
    for name, values in settings.items():
        coarse = [best, *({**best, name: value} for value in values[::2])]
        best = min(coarse, key=of)
    while True:
        least = min(neighbours(best, settings), key=of)
        if of(least) >= of(best):
            break
        best = least
    return [(dict(zip(settings, key)), lost) for key, lost in known.items()]


def neighbours(setting: Setting, settings: Mapping[str, Sequence[float]]) -> Iterator[Setting]:
    """The settings that differ in one value, which is the next smaller or larger one."""
    for name, values in settings.items():
        at = values.index(setting[name])
        for value in (*values[max(at - 1, 0) : at], *values[at + 1 : at + 2]):
            yield {**setting, name: value}


def edges(setting: Mapping[str, float], settings: Mapping[str, Sequence[float]]) -> str:
    """The names of the settings whose value is the first or the last that was offered.

    A first value of 0 is no edge, because there are no smaller delays.
    """
    ends = {name: {values[-1], values[0] or values[-1]} for name, values in settings.items()}
    return " ".join(name for name in settings if setting[name] in ends[name])


def mean_loss(
    days: Sequence[Day], make: Callable[[PolicyContext], Policy], capacity: int, trials: int
) -> float:
    """Mean `lost_utility` of a policy over days and trials."""
    return float(
        np.mean(
            [
                lost_utility(minute_utility(trial.run))
                for context, workload in days
                for trial in run_trials(
                    workload, {"rival": make(context)}, capacity, trial_draws(workload, trials)
                )
            ]
        )
    )


def chosen(
    table: pd.DataFrame, context: PolicyContext, capacity: int, rivals: Mapping[str, Rival] = RIVALS
) -> Iterator[tuple[str, Policy]]:
    """(name, policy) of each rival with the settings chosen for `capacity` in a table of `tune`."""
    best = table[table["chosen"] & (table["capacity_cores"] == capacity)].set_index("rival")
    for name, rival in rivals.items():
        if name in best.index:
            setting: dict[str, Any] = {key: best.loc[name, key] for key in rival.settings}
            whole = {key: int(value) for key, value in setting.items() if key.endswith("_minutes")}
            yield name, rival.make(context, **{**setting, **whole})
