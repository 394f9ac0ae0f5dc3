"""The table of recorded trials in docs/kubernetes.md, and a summary on all pages that name them.

Both are from data/recorded-kubernetes. `make recorded-kubernetes` writes the tables and the pages.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import marked
import pandas as pd

from studies.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/kubernetes.md"
SUMMARY = ROOT / "data/recorded-kubernetes/summary.csv"
# The pages that name the trials.
NAMING = [ROOT / "docs" / name for name in ("index.md", "live.md", "limits.md")]
FINDING = "recorded trials in short: docs/recorded_trials.py writes it"
MARK = "recorded trials: docs/recorded_trials.py writes this table"


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


def with_finding(page: str) -> str:
    """The page with its summary of the recorded trials replaced."""
    return marked.with_table(page, FINDING, finding(pd.read_csv(SUMMARY)))


if __name__ == "__main__":
    PAGE.write_text(marked.with_table(PAGE.read_text(), MARK, table(pd.read_csv(SUMMARY))))
    for page in NAMING:
        page.write_text(with_finding(page.read_text()))
    print(PAGE, *NAMING)
