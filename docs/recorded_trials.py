"""The table of recorded trials in docs/kubernetes.md, from data/recorded-kubernetes (`make
recorded-kubernetes`).
"""

from __future__ import annotations

from pathlib import Path

import marked
import pandas as pd

ROOT = Path(__file__).parent.parent
PAGE, SUMMARY = ROOT / "docs/kubernetes.md", ROOT / "data/recorded-kubernetes/summary.csv"
MARK = "recorded trials: docs/recorded_trials.py writes this table"


def table(summary: pd.DataFrame) -> str:
    """One row per trial and policy: lost utility and violations, live and simulated, and requests
    without an answer.
    """
    wide = summary.set_index(["trial", "policy", "environment"])
    lines = [
        "| trial | policy | lost utility of 5 jobs | simulated | violations | simulated | dropped | failed or not sent |",
        "| --- " * 8 + "|",
    ]
    for trial, policy in wide.index.droplevel("environment").unique():
        live, twin = (
            wide.loc[(trial, policy, environment)] for environment in ("live", "simulation")
        )
        shares = [f"{100 * one['slo_violation_rate']:.1f} %" for one in (live, twin)]
        losses = [f"{one['lost_utility']:.2f}" for one in (live, twin)]
        lost = f"{live['dropped']:.0f} | {live['failed'] + live['unsent']:.0f}"
        lines.append(
            f"| {trial} | {policy} | {losses[0]} | {losses[1]} | {shares[0]} | {shares[1]} | "
            f"{lost} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(marked.with_table(PAGE.read_text(), MARK, table(pd.read_csv(SUMMARY))))
    print(PAGE)
