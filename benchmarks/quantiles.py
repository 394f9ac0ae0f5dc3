"""Diagnosis on the evaluation day: the paper's Sum and PenaltySum with other quantiles of our
forecast than the published 0.6.

    python benchmarks/quantiles.py         # about five minutes on one idle core

Prints the table of docs/comparison.md: the lost utility of five trials, as the paper computes it.
The published forecaster is not available, so the height of its quantile is unknown. Nothing is
selected from this table.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.claims import CAPACITIES, PLUGIN, POSTERIOR, TRIALS, Inputs
from faro_lib.experiments.trials import summaries
from faro_lib.policies import make
from faro_lib.registry import load_plugins

POLICIES, QUANTILES = ("Faro-Sum", "Faro-PenaltySum"), (0.5, 0.55, 0.6, 0.7)


def main() -> None:
    load_plugins([PLUGIN])
    inputs = Inputs(POSTERIOR)
    day = inputs.traces.workload()
    heads = ("policy", "cores", *map(str, QUANTILES), "published")
    print(f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|", sep="\n")
    for policy in POLICIES:
        made = make(f"{policy} (paper)", inputs.context)
        at = {f"{quantile}": replace(made, quantile=quantile) for quantile in QUANTILES}
        for size in CAPACITIES:
            summary = summaries(day, at, size, TRIALS, published=True, report=None)
            lost = summary.groupby("policy", sort=False)["lost_utility_published"].agg(
                ["mean", "std"]
            )
            cells = [f"{mean:.3f} ({deviation:.3f})" for _, mean, deviation in lost.itertuples()]
            published = inputs.published.loc[policy, size]["lost_cluster_utility_mean"]
            print(f"| {policy} | {size} | {' | '.join(cells)} | {published:.3f} |", flush=True)


if __name__ == "__main__":
    main()
