"""The table of recorded trials in docs/kubernetes.md, from data/recorded-kubernetes.

`make recorded-kubernetes` writes both.
"""

from __future__ import annotations

from pathlib import Path

import marked
import pandas as pd

from studies.wording import markdown_table

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/kubernetes.md"
SUMMARY = ROOT / "data/recorded-kubernetes/summary.csv"
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


if __name__ == "__main__":
    PAGE.write_text(marked.with_table(PAGE.read_text(), MARK, table(pd.read_csv(SUMMARY))))
    print(PAGE)
