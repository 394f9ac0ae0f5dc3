"""The findings of a run, as sentences computed from its tables."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from faro_lib.figures.style import MEASURES as LABELS
from studies.forecast.scores import scores_caption
from studies.report.tables import MEASURES, by_run
from studies.tables.paired import t_interval
from studies.tables.wording import and_list


def findings(results: Path, stages: set[str]) -> list[str]:
    """Sentences on the best policies, the clairvoyant limit, the forecasts and the decision time.

    Forecast tables are read only if `stages` has "forecast". Otherwise they may come from an
    earlier configuration.
    """
    summary = pd.read_csv(results / "simulate" / "summary.csv")
    limit = pd.read_csv(results / "simulate" / "limit.csv")
    forecasts = "No forecast was scored, because the workload has fewer than two training days."
    if "forecast" in stages:
        scores = pd.read_csv(results / "forecast" / "scores.csv")
        gains = pd.read_csv(results / "forecast" / "gains.csv")
        forecasts = calibration(scores, gains)
    return [
        lowest(summary, "lost_utility"),
        lowest(summary, "slo_violation_rate"),
        above_the_limit(summary, limit),
        forecasts,
        decision_time(summary),
    ]


def lowest(summary: pd.DataFrame, measure: str) -> str:
    """The policy with the lowest mean of a measure at each capacity, and its margin."""
    _, shape, _ = MEASURES[measure]
    number, unit, scale = shape, "", 1
    if "%" in shape:
        number, unit, scale = "{:.2f}", " percentage points", 100
    clauses = []
    for capacity, part in sorted(summary.groupby("capacity_cores"), reverse=True):
        runs = by_run(part, measure)
        mean = runs.mean().sort_values(kind="stable")
        best, *others = mean.index
        margins = {other: t_interval(runs[other], runs[best]) for other in others}
        unclear = [other for other, (margin, half) in margins.items() if not margin > half]
        clause = f"{shape.format(mean.iloc[0])} at {capacity:g} cores, under {best}"
        if others:
            margin, half_width = margins[others[0]]
            interval = "" if math.isnan(half_width) else f" ± {number.format(scale * half_width)}"
            below = f"{number.format(scale * margin)}{interval}{unit}"
            clause += f", {below} below the next policy, {others[0]}"
        if unclear and len(part) == len(others) + 1:
            clause += " (a single trial, so no policy is clearly better)"
        elif unclear:
            clause += (
                " (no policy is clearly better, because the interval against "
                f"{and_list(unclear)} includes zero)"
            )
        clauses.append(clause)
    return f"The lowest {LABELS[measure]} is {'; '.join(clauses)}."


def above_the_limit(summary: pd.DataFrame, limit: pd.DataFrame) -> str:
    """How much more utility the best policy loses than the clairvoyant limit, at each capacity."""
    clauses = []
    for capacity, part in sorted(summary.groupby("capacity_cores"), reverse=True):
        floor = limit[limit["capacity_cores"] == capacity].set_index("trial")["lost_utility"]
        lost = by_run(part).groupby(level="trial").mean()
        best = lost.mean().idxmin()
        distance, half_width = t_interval(lost[best], floor.reindex(lost.index))
        interval = "" if math.isnan(half_width) else f" ± {half_width:.3f}"
        clauses.append(
            f"{distance:.3f}{interval} more than {floor.mean():.3f} at {capacity:g} cores ({best})"
        )
    return f"The best policy loses more utility than the clairvoyant limit: {'; '.join(clauses)}."


def calibration(scores: pd.DataFrame, gains: pd.DataFrame) -> str:
    """The coverage of the forecasts' 80 % intervals, and the comparison with baselines."""
    coverage = scores[scores["forecaster"] == "bayes"].set_index("job")["coverage_80"]
    by_job = (coverage.drop("all") - 0.8).abs()
    return (
        f"The 80 % intervals of the forecasts cover {coverage['all']:.1%} of the actual requests "
        f"per minute, and {coverage[by_job.idxmax()]:.1%} for the job farthest from 80 %, "
        f"{by_job.idxmax()}. {scores_caption(gains[gains['score'] == 'CRPS'])}"
    )


def decision_time(summary: pd.DataFrame) -> str:
    """A sentence with the decision times of the slowest policy."""
    times_ms = summary.groupby("policy")[["decision_ms_p50", "decision_ms_p99"]].mean()
    slowest = times_ms["decision_ms_p99"].idxmax()
    median, high = times_ms.loc[slowest]
    return (
        f"Decisions are slowest under {slowest}: {median:,.1f} ms in the median and {high:,.1f} ms "
        "at the 99th percentile, mean over capacities and trials."
    )
