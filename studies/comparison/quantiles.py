"""Diagnosis: the paper's Sum and PenaltySum with other forecast quantiles than the published 0.6.

    python -m studies.comparison.quantiles         # about five minutes on one idle core

Prints the table of docs/comparison.md: the lost utility of five trials of the evaluation day, as
the paper computes it. The published forecaster is not available, so the height of its quantile is
unknown. Nothing is selected from this table.
"""

from __future__ import annotations

from dataclasses import replace

from faro_lib.policies import make
from faro_lib.registry import load_plugins
from studies.claims.run import CAPACITIES, PLUGIN, POSTERIOR, TRIALS, Inputs
from studies.tables.run_tables import summaries
from studies.tables.wording import markdown_lines

POLICIES = ("Faro-Sum", "Faro-PenaltySum")
QUANTILES = (0.5, 0.55, 0.6, 0.7)


def main() -> None:
    load_plugins([PLUGIN])
    inputs = Inputs(POSTERIOR)
    day = inputs.traces.workload()

    def rows():
        for policy in POLICIES:
            made = make(f"{policy} (paper)", inputs.context)
            at = {f"{quantile}": replace(made, quantile=quantile) for quantile in QUANTILES}
            for size in CAPACITIES:
                summary = summaries(day, at, size, TRIALS, published=True, report=None)
                by_quantile = summary.groupby("policy", sort=False)["lost_utility_published"]
                lost = by_quantile.agg(["mean", "std"])
                cells = [f"{mean:.3f} ({spread:.3f})" for _, mean, spread in lost.itertuples()]
                published = inputs.published.loc[policy, size]["lost_cluster_utility_mean"]
                yield policy, size, *cells, f"{published:.3f}"

    for line in markdown_lines(["policy", "cores", *map(str, QUANTILES), "published"], rows()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
