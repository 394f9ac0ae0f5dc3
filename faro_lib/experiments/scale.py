"""More jobs, jobs of two models, and more cluster sizes: experiments on workloads made from one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.compare import limits_of, summaries, trial_seeds
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.paper import ExactPaperFaro, GroupedPaperFaro
from faro_lib.simulate import draw
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces, Workload, jobs_array
from faro_lib.workload.enlarge import last_days, mixed, repeated, shifted

REPEATED, SHIFTED = "repeated", "shifted"
LEARN_DAYS = 4  # of the training days, where there are many jobs
SEED = 1  # of the shifts and scales
GROUPED, EXACT = "Faro-Sum (paper, hierarchical)", "Faro-Sum (paper, exact)"
COMPARED = ("FairShare", "AIAD", GROUPED, EXACT, "Faro-Sum")


def make_any(name: str, context: PolicyContext):
    """`policies.make`, and the paper's edition of Faro-Sum with its hierarchical or the exact solver."""
    other = {GROUPED: GroupedPaperFaro, EXACT: ExactPaperFaro}.get(name)
    if other is None:
        return make(name, context)
    return other(context.require("forecaster", name), name=name, objective="Sum")


def enlarged(traces: Traces, how: str, jobs: int, seed: int = SEED) -> Traces:
    """As many `jobs` as wanted: how = "repeated" (the paper's way) or "shifted" (ours), from the last training days."""
    if how not in (REPEATED, SHIFTED):
        raise ValueError(f"how={how!r} is unknown; accepted: {REPEATED}, {SHIFTED}")
    few = last_days(traces, LEARN_DAYS)
    return repeated(few, jobs) if how == REPEATED else shifted(few, jobs, seed)


def larger(
    traces: Traces,
    latency_model: Any,
    how: str,
    jobs: int,
    replicas: int,
    *,
    policies: Sequence[str] = COMPARED,
    trials: int = 1,
    minutes: int | None = None,
    limit: bool = True,
    report: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One larger cluster: the summary and the limit, both with columns variant (`how`) and jobs.

    The forecaster is the pooled autoregression, learnt from the enlarged training days. Groups need replicas of one size, so
    where jobs differ in cores the hierarchical edition is left out.

    Parameters
    ----------
    latency_model : the measured latency table of the models, or None.
    replicas : of the jobs' mean size in cores.
    minutes : of the day; None = all of it.
    """
    many = enlarged(traces, how, jobs)
    cores = jobs_array(many.jobs, "cores")
    capacity = round(replicas * cores.mean())
    context = PolicyContext(many.jobs, forecast.fit("ar", many), latency_model)
    day = _part_of_a_day(many, minutes)
    made = {name: make_any(name, context) for name in policies if name != GROUPED or np.ptp(cores) == 0}
    summary, limits = summaries(day, made, capacity, trials, limit=limit, report=report)
    about = {"variant": how, "jobs": jobs, "capacity_cores": replicas}
    return summary.assign(**about), limits.assign(**about)


def two_models(
    traces: Traces,
    context: PolicyContext,
    replicas: int,
    policies: Sequence[str],
    *,
    trials: int = 1,
    minutes: int | None = None,
    report: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every other job serves ResNet18: the summary and the limit. Both models are measured anew."""
    both = mixed(traces)
    context = PolicyContext(both.jobs, context.forecaster, measure(both.jobs))
    day = _part_of_a_day(both, minutes)
    made = {name: make(name, context) for name in policies}
    summary, limits = summaries(day, made, replicas, trials, limit=True, report=report)
    return summary.assign(variant="mixed", jobs=len(both.jobs)), limits


def curve(
    traces: Traces,
    context: PolicyContext,
    sizes: Sequence[int],
    policies: Sequence[str],
    *,
    trials: int = 3,
    minutes: int | None = None,
    report: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same day at many cluster sizes: the summary, and the limit of the first trial at each size."""
    day = _part_of_a_day(traces, minutes)
    made = {name: make(name, context) for name in policies}
    rows = pd.concat([summaries(day, made, size, trials, report=report)[0] for size in sizes], ignore_index=True)
    return rows, pd.DataFrame(limits_of(day, draw(day, trial_seeds(1)[0]), tuple(sizes)))


def _part_of_a_day(traces: Traces, minutes: int | None) -> Workload:
    day = traces.workload()
    return day if minutes is None else day.between(0, minutes)
