"""The table of recorded trials in docs/kubernetes.md, and its summary in docs/limits.md."""

from __future__ import annotations

import textwrap

import pandas as pd

from studies.tables.pages import Part
from studies.tables.wording import markdown_table


def table(summary: pd.DataFrame) -> str:
    """A row per trial and policy: losses and violations, live and simulated, and lost requests."""
    wide = summary.set_index(["trial", "policy", "environment"])
    rows = []
    for trial, policy in wide.index.droplevel("environment").unique():
        live = wide.loc[(trial, policy, "live")]
        twin = wide.loc[(trial, policy, "simulation")]
        losses = [f"{one['lost_utility']:.2f}" for one in (live, twin)]
        shares = [f"{100 * one['slo_violation_rate']:.1f} %" for one in (live, twin)]
        lost = [f"{live['dropped']:.0f}", f"{live['failed'] + live['unsent']:.0f}"]
        rows.append((trial, policy, *losses, *shares, *lost))
    heads = ["trial", "policy", "lost utility of 5 jobs", "simulated", "violations", "simulated"]
    return markdown_table([*heads, "dropped", "failed or not sent"], rows)


def finding(summary: pd.DataFrame) -> str:
    """What Faro-Sum and the HPA's rule lose live, with and without a lost worker."""
    live = summary[summary["environment"] == "live"]
    fault = live["capacity_steps"] != "[]"

    def losses(rows: pd.DataFrame, policy: str) -> str:
        return " and ".join(
            f"{loss:.2f}" for loss in rows.loc[rows["policy"] == policy, "lost_utility"]
        )

    return textwrap.fill(
        "Live on kind, in trials of ten minutes with five jobs, Faro-Sum loses "
        f"{losses(live[~fault], 'Faro-Sum')} utility and the HPA's rule "
        f"{losses(live[~fault], 'HPA')}. In the trial in which a Ray worker, half of the cores, is "
        f"lost, Faro-Sum loses more than the HPA's rule: {losses(live[fault], 'Faro-Sum')} against "
        f"{losses(live[fault], 'HPA')}.",
        100,
    )


RUNS = ["data/recorded-kubernetes/summary.csv"]
PARTS = [
    Part("docs/kubernetes.md", "recorded trials", RUNS, table),
    Part("docs/limits.md", "recorded trials in short", RUNS, finding),
]
