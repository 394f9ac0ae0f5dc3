"""The table of recorded trials in docs/kubernetes.md, and a summary on all pages that name them.

Both are from data/recorded-kubernetes. `make recorded-kubernetes` writes the tables and the pages.
The table of the long run on Ray Serve in docs/live.md is from data/recorded-live.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import marked
import pandas as pd

from studies.tables.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/kubernetes.md"
SUMMARY = ROOT / "data/recorded-kubernetes/summary.csv"
LIVE_PAGE = ROOT / "docs/live.md"
LONG_RUN = ROOT / "data/recorded-live/summary.csv"
LONG_MARK = "long run: docs/recorded_trials.py writes this table"
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


def long_run(summary: pd.DataFrame) -> str:
    """A row per policy of the long run on Ray Serve: violations and losses, live and simulated."""
    rows = []
    for policy, runs in summary.groupby("policy", sort=False):
        live, twin = (
            runs[runs["environment"] == name].sort_values("trial")
            for name in ("live", "simulation")
        )
        violations = 100 * live["slo_violation_rate"]
        by_trial = ", ".join(f"{share:.1f}" for share in violations)
        simulated = 100 * twin["slo_violation_rate"].mean()
        losses = [
            f"{one['lost_utility'].mean():.3f} ({one['lost_utility'].std():.3f})"
            for one in (live, twin)
        ]
        shares = [f"{by_trial} %", f"{violations.mean():.1f} %", f"{simulated:.1f} %"]
        rows.append((policy, *shares, *losses))
    heads = ["policy", "violations live, by trial", "mean", "simulator"]
    return markdown_table([*heads, "lost utility of 5 jobs, live", "simulator"], rows)


def with_long_run(page: str) -> str:
    """docs/live.md with its table of the long run replaced."""
    return marked.with_table(page, LONG_MARK, long_run(pd.read_csv(LONG_RUN)))


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
    LIVE_PAGE.write_text(with_long_run(LIVE_PAGE.read_text()))
    for page in NAMING:
        page.write_text(with_finding(page.read_text()))
    print(PAGE, *NAMING)
