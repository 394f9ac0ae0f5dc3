"""The table of the long run on Ray Serve in docs/live.md."""

from __future__ import annotations

import pandas as pd

from studies.tables.pages import Part
from studies.tables.wording import markdown_table


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


PARTS = [Part("docs/live.md", "long run", ["data/recorded-live/summary.csv"], long_run)]
