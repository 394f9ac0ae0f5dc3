"""Where a margin ends: one parameter at a time is changed, everything else stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from faro_lib.experiments.compare import summaries
from faro_lib.forecast.oracle import oracle
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.policies.loops import TwoLoops
from faro_lib.simulate.measure import measure
from faro_lib.workload import Workload

# Each parameter and how its values are said.
PARAMETERS = {
    "cold_start_s": "cold start (s)",
    "slo_factor": "SLO (service times)",
    "forecast_error": "forecast error (of an oracle)",
    "interval_s": "decision interval (s)",
    "scv_factor": "service variability (of the measured)",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of one parameter: the workload, what policies are made from, and what changes in them."""

    parameter: str
    value: float
    workload: Workload
    context: PolicyContext
    interval_s: float | None = None
    scv_factor: float = 1.0

    def policies(self, names: Sequence[str]) -> dict[str, Policy]:
        """Policies by name; those that plan take the interval."""
        made = {name: make(name, self.context) for name in names}
        if self.interval_s is None:
            return made
        return {
            name: replace(policy, interval_s=self.interval_s) if isinstance(policy, TwoLoops) else policy
            for name, policy in made.items()
        }


def settings(workload: Workload, context: PolicyContext, values: Mapping[str, Sequence[float]]) -> Iterator[Setting]:
    """Every value of every parameter.

    - cold_start_s: how long a new replica takes; policies keep the options that were chosen at the usual one.
    - slo_factor: the promise, in planned service times; the latency table is measured again for it.
    - forecast_error: of an oracle, which takes the place of the forecaster.
    - interval_s: between two decisions of a policy that plans.
    - scv_factor: the replicas' service times vary so much more than the latency table knows.
    """
    unknown = set(values) - set(PARAMETERS)
    if unknown:
        raise ValueError(f"parameter={min(unknown)!r} is unknown; accepted: {', '.join(PARAMETERS)}")
    for cold_start_s in values.get("cold_start_s", ()):
        yield Setting(
            "cold_start_s",
            cold_start_s,
            *_with_jobs(workload, context, lambda job, s=cold_start_s: {"cold_start_s": s}),
        )
    for factor in values.get("slo_factor", ()):
        changed, same = _with_jobs(workload, context, lambda job, f=factor: {"slo_s": f * job.service_time_s})
        table = context.latency_model and measure(changed.jobs)
        yield Setting("slo_factor", factor, changed, replace(same, latency_model=table))
    for error in values.get("forecast_error", ()):
        yield Setting("forecast_error", error, workload, replace(context, forecaster=oracle(workload, error)))
    for interval_s in values.get("interval_s", ()):
        yield Setting("interval_s", interval_s, workload, context, interval_s=interval_s)
    for scv_factor in values.get("scv_factor", ()):
        yield Setting("scv_factor", scv_factor, workload, context, scv_factor=scv_factor)


def sensitivity(
    workload: Workload,
    context: PolicyContext,
    values: Mapping[str, Sequence[float]],
    policies: Sequence[str],
    capacity: int,
    trials: int,
    *,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Every policy in every setting: rows parameter, value, policy, replicas, trial and the measures."""
    frames = []
    for setting in settings(workload, context, values):
        made = setting.policies(policies)
        rows, _ = summaries(
            setting.workload, made, capacity, trials, scv_factor=setting.scv_factor, report=lambda line: None
        )
        lost = rows.groupby("policy")["lost_utility"].mean().round(3).to_dict()
        report(f"{setting.parameter}={setting.value:g}: {lost}")
        rows.insert(0, "parameter", setting.parameter)
        rows.insert(1, "value", float(setting.value))
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def margins(summary: pd.DataFrame, leader: str) -> pd.DataFrame:
    """How far ahead of the best other policy: columns parameter, value, margin, best_other.

    `margin` is the lost utility that the leader avoids, negative where it is behind, mean over trials.
    """
    mean = summary.groupby(["parameter", "value", "policy"], sort=False)["lost_utility"].mean().unstack("policy")
    if leader not in mean:
        raise ValueError(f"leader={leader!r} is not among the policies: {', '.join(mean)}")
    others = mean.drop(columns=leader)
    table = pd.DataFrame({"margin": others.min(axis=1) - mean[leader], "best_other": others.idxmin(axis=1)})
    order = [name for name in PARAMETERS if name in set(summary["parameter"])]
    return table.sort_index().reindex(order, level="parameter").reset_index()


def where_it_ends(margin: pd.DataFrame) -> dict[str, tuple[float | None, float | None]]:
    """For each parameter the last value with a margin and the first without, by size; None where there is none.

    >>> where_it_ends(pd.DataFrame({"parameter": "e", "value": [0.0, 0.2, 0.5], "margin": [0.7, 0.3, -0.4]}))
    {'e': (0.2, 0.5)}
    """
    ends: dict[str, tuple[float | None, float | None]] = {}
    for name, part in margin.groupby("parameter", sort=False):
        values = list(zip(part["value"].tolist(), part["margin"].tolist()))
        lost = [value for value, ahead in values if ahead <= 0]
        kept = [value for value, ahead in values if ahead > 0 and (not lost or value < lost[0])]
        ends[str(name)] = (kept[-1] if kept else None, lost[0] if lost else None)
    return ends


def _with_jobs(
    workload: Workload, context: PolicyContext, change: Callable[..., dict[str, Any]]
) -> tuple[Workload, PolicyContext]:
    jobs = tuple(replace(job, **change(job)) for job in workload.jobs)
    return replace(workload, jobs=jobs), replace(context, jobs=jobs)
