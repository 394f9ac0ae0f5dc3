"""The tables of the report: measures of each policy at one capacity, and the clairvoyant limit."""

from __future__ import annotations

import math

import pandas as pd

from studies.tables.paired import t_interval

# Column of simulate/summary.csv -> heading, number format and definition. In all columns, lower is
# better.
MEASURES = {
    "lost_utility": (
        "lost utility",
        "{:.3f}",
        "sum of 1 - utility over jobs, mean over minutes; at most 1 per job",
    ),
    "slo_violation_rate": (
        "SLO violations",
        "{:.2%}",
        "share of requests dropped or late, mean over jobs with requests, then over minutes",
    ),
    "lost_effective_utility": (
        "lost effective utility",
        "{:.3f}",
        "as lost utility, but a drop costs its penalty",
    ),
    "drop_rate": ("dropped", "{:.2%}", "share of all requests of the day"),
    "replicas_used_mean": ("replicas used", "{:.1f}", "running replicas, mean over ticks"),
}
DIFFERENCE = (
    "above the best",
    "lost utility minus that of the best policy, with a 95 % interval over the paired trials "
    "(Student's t)",
)


def tables(summary: pd.DataFrame, limit: pd.DataFrame) -> list[tuple[int, list[dict[str, object]]]]:
    """One pair (capacity, rows) per capacity, with a row per policy and one for the limit.

    A cell is (text, whether it is the best of its column). The text is mean ± standard deviation
    over trials. In the last column, the text comes from `above_the_best`.
    """
    by_capacity = []
    for capacity, part in sorted(summary.groupby("capacity_cores"), reverse=True):
        best = part.groupby("policy")[list(MEASURES)].mean().idxmin()
        lost = by_run(part)
        rows: list[dict[str, object]] = []
        for policy, trials in part.groupby("policy", sort=False):
            cells = []
            for name, (_, shape, _) in MEASURES.items():
                cells.append((spread(trials[name], shape), policy == best[name]))
            cells.append((above_the_best(lost, policy, best["lost_utility"]), False))
            rows.append({"policy": policy, "cells": cells, "trials": len(trials)})
        floor = limit.loc[limit["capacity_cores"] == capacity, "lost_utility"]
        texts = {"lost_utility": spread(floor, MEASURES["lost_utility"][1])} if len(floor) else {}
        cells = [(texts.get(name, "-"), False) for name in (*MEASURES, "above_the_best")]
        rows.append({"policy": "clairvoyant limit", "cells": cells, "trials": len(floor)})
        by_capacity.append((int(capacity), rows))
    return by_capacity


def by_run(summary: pd.DataFrame, measure: str = "lost_utility") -> pd.DataFrame:
    """A measure at one capacity, with a row per trial and a column per policy.

    The index is the trial, or day and trial.
    """
    run = [name for name in ("day", "trial") if name in summary]
    return summary.pivot(index=run, columns="policy", values=measure)


def above_the_best(lost: pd.DataFrame, policy: str, best: str) -> str:
    """A policy's lost utility minus the best policy's as text; "-" for the best policy itself."""
    if policy == best:
        return "-"
    mean, half_width = t_interval(lost[policy], lost[best])
    return f"{mean:+.3f}" if math.isnan(half_width) else f"{mean:+.3f} ± {half_width:.3f}"


def spread(values: pd.Series, shape: str) -> str:
    """Mean ± sample standard deviation as text; only the mean for a single value.

    >>> import pandas as pd
    >>> spread(pd.Series([1.0, 2.0]), "{:.1f}"), spread(pd.Series([0.5]), "{:.0%}")
    ('1.5 ± 0.7', '50%')
    """
    mean = shape.format(values.mean())
    return mean if len(values) < 2 else f"{mean} ± {shape.format(values.std())}"
