"""Experiments on scale: more jobs, jobs with two models, and a range of capacities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, trial_draws
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.queueing import ModelLike
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces, arrays_of
from faro_lib.workload.jobs import TOLERANCE
from faro_lib.workload.shares import fair_share
from studies.comparison.run import limits_of
from studies.paper.published import ExactPaperFaro, GroupedPaperFaro
from studies.scale.world import last_days, mixed, repeated, shifted
from studies.tables.run_tables import summaries

REPEATED, SHIFTED = "repeated", "shifted"
LEARN_DAYS = 4  # training days of a large workload
SEED = 1  # seed of the random shifts and scales
GROUPED, EXACT = "Faro-Sum (paper, hierarchical)", "Faro-Sum (paper, exact)"
ONE, EQUAL = "one replica", "equal share"  # values of the column `start`: initial replicas of a job
COMPARED = ("FairShare", "AIAD", GROUPED, EXACT, "Faro-Sum")
# Summary of all runs, and clairvoyant limit of the first trial.
Results = tuple[pd.DataFrame, pd.DataFrame]


def make_any(name: str, context: PolicyContext) -> Policy:
    """Make a policy with `policies.make`, or the paper's Faro-Sum for GROUPED and EXACT."""
    solver = {GROUPED: GroupedPaperFaro, EXACT: ExactPaperFaro}.get(name)
    if solver is None:
        return make(name, context)
    return solver(context.require("forecaster", name), name=name, objective="Sum")


def enlarged(traces: Traces, how: str, jobs: int) -> Traces:
    """Traces of `jobs` jobs, made from those of `traces`, with the last LEARN_DAYS training days.

    `how` is REPEATED (copies, as in the paper) or SHIFTED (copies that are shifted in time and
    scaled).
    """
    if how not in (REPEATED, SHIFTED):
        raise ValueError(f"how={how!r} is unknown; accepted: {REPEATED}, {SHIFTED}")
    recent = last_days(traces, LEARN_DAYS)
    if how == REPEATED:
        return repeated(recent, jobs)
    return shifted(recent, jobs, SEED)


def larger(
    traces: Traces,
    latency_model: ModelLike | None,
    how: str,
    jobs: int,
    replicas: int,
    policies: Sequence[str] = COMPARED,
    **options: Any,
) -> Results:
    """Run every policy with `jobs` jobs. Both tables get the columns variant (= `how`) and jobs.

    The forecaster is the mixture `auto`, fitted to the enlarged training days. GROUPED is left out
    if the jobs differ in cores, because its groups exchange replicas of equal size.

    replicas : capacity, in replicas with the mean number of cores.
    options : arguments of `curve`.
    """
    many = enlarged(traces, how, jobs)
    cores = arrays_of(many.jobs).cores
    context = PolicyContext(many.jobs, forecast.fit("auto", many), latency_model, traces=many)
    names = [name for name in policies if name != GROUPED or np.ptp(cores) == 0]
    capacity = int(np.ceil(replicas * cores.mean() - TOLERANCE))
    results = curve(many, context, (capacity,), names, **options)
    summary, limits = (table.assign(variant=how, jobs=jobs) for table in results)
    return summary, limits


def two_models(
    traces: Traces, context: PolicyContext, capacity: int, policies: Sequence[str], **options: Any
) -> Results:
    """Run `curve` at one capacity, with ResNet18 in every second job.

    Latencies are measured for both models.
    """
    both = mixed(traces)
    context = PolicyContext(both.jobs, context.forecaster, measure(both.jobs), traces=both)
    results = curve(both, context, (capacity,), policies, **options)
    summary, limits = (table.assign(variant="mixed", jobs=len(both.jobs)) for table in results)
    return summary, limits


def curve(
    traces: Traces,
    context: PolicyContext,
    capacities: Sequence[int],
    policies: Sequence[str],
    *,
    trials: int = 1,
    minutes: int | None = None,
    limit: bool = True,
    equal_start: bool = False,
    report: Report = print,
) -> Results:
    """Run every policy at each capacity in cores, on the first `minutes` of the evaluation day.

    By the published rules, all policies but FairShare start with one replica per job and spend the
    first minutes catching up. `equal_start` starts every policy with an equal share. The summary's
    column `start` is ONE or EQUAL.
    """
    day = traces.workload().between(0, minutes or traces.evaluation.shape[-1])
    made = {name: make_any(name, context) for name in policies}
    parts = []
    for size in capacities:
        initial = fair_share(day.jobs, size) if equal_start else None
        parts.append(
            summaries(day, made, size, trials, initial=initial, published=True, report=report)
        )
    summary = pd.concat(parts, ignore_index=True).assign(start=EQUAL if equal_start else ONE)
    limits = limits_of(day, next(trial_draws(day, 1)), capacities) if limit else pd.DataFrame()
    return summary, limits


def as_published(summary: pd.DataFrame) -> pd.DataFrame:
    """Means and deviations over trials, in the columns of the paper's `published_main.csv`.

    The columns variant and jobs are added.

    summary : summaries of `curve`, `larger` or `two_models` without `equal_start`, with the columns
        variant and jobs.
    """
    names = {"capacity_cores": "replicas", "policy": "system"}
    measures = {
        "lost_utility_published": "lost_cluster_utility",
        "slo_violation_rate": "slo_violation_rate",
        "lost_effective_utility_published": "lost_effective_utility",
    }
    own = summary.drop(columns=["lost_effective_utility"])  # the same, not as published
    rows = own.rename(columns=names | measures).assign(env="simulation")
    by = rows.groupby(["variant", "jobs", "env", "replicas", "system"], sort=False)
    table = by[list(measures.values())].agg(["mean", "std"])
    table.columns = ["_".join(pair) for pair in table.columns]
    table.insert(0, "trials", by.size())
    return table.reset_index()
