"""Sensitivity analysis: how the margin over the best other policy depends on single parameters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from faro_lib.experiments.trials import Report
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.policies.loops import TwoLoops
from faro_lib.simulate.measure import measure
from faro_lib.workload import Workload
from studies.forecast.oracle import oracle
from studies.tables.run_tables import summaries

# Parameter -> axis label.
PARAMETERS = {
    "cold_start_s": "cold start (s)",
    "slo_factor": "SLO (service times)",
    "forecast_error": "forecast error (of an oracle)",
    "interval_s": "decision interval (s)",
    "scv_factor": "service variability (of the measured)",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of one parameter, with the workload and the policy context for this value."""

    parameter: str
    value: float
    workload: Workload
    context: PolicyContext
    interval_s: float | None = None
    scv_factor: float = 1.0

    def policies(self, names: Sequence[str]) -> dict[str, Policy]:
        """Make the policies.

        If `interval_s` is set, those that plan with a forecast decide at this interval.
        """
        made = {name: make(name, self.context) for name in names}
        if self.interval_s is not None:
            planners = [(name, one) for name, one in made.items() if isinstance(one, TwoLoops)]
            made |= {name: replace(one, interval_s=self.interval_s) for name, one in planners}
        return made


def settings(
    workload: Workload, context: PolicyContext, values: Mapping[str, Sequence[float]]
) -> Iterator[Setting]:
    """One setting per value of each parameter, with everything else unchanged.

    - cold_start_s: seconds until a new replica serves. The policies' own parameters stay the same.
    - slo_factor: SLO divided by the mean service time in a fully loaded replica. The latency table
      is measured again.
    - forecast_error: relative error of an oracle that replaces the forecaster.
    - interval_s: seconds between two decisions of a policy that plans with a forecast.
    - scv_factor: factor on the squared coefficient of variation of service times. The latency table
      stays the same.
    """
    unknown = set(values) - set(PARAMETERS)
    if unknown:
        raise ValueError(
            f"parameter={min(unknown)!r} is unknown; accepted: {', '.join(PARAMETERS)}"
        )
    for name in PARAMETERS:
        for value in values.get(name, ()):
            if name == "cold_start_s":
                jobs = tuple(replace(job, cold_start_s=value) for job in workload.jobs)
                changed = replace(context, jobs=jobs)
                yield Setting(name, value, replace(workload, jobs=jobs), changed)
            elif name == "slo_factor":
                jobs = tuple(
                    replace(job, slo_s=value * job.busy_s * job.replica.max_in_service)
                    for job in workload.jobs
                )
                table = context.latency_model and measure(jobs)
                changed = replace(context, jobs=jobs, latency_model=table)
                yield Setting(name, value, replace(workload, jobs=jobs), changed)
            elif name == "forecast_error":
                changed = replace(context, forecaster=oracle(workload, value))
                yield Setting(name, value, workload, changed)
            else:  # a field of `Setting`
                yield Setting(name, value, workload, context, **{name: value})


def sensitivity(
    workload: Workload,
    context: PolicyContext,
    values: Mapping[str, Sequence[float]],
    policies: Sequence[str],
    capacity: int,
    trials: int,
    *,
    report: Report = print,
) -> pd.DataFrame:
    """Run every policy in every setting.

    Columns parameter, value, policy, capacity_cores, trial and the measures.
    """
    frames = []
    for one in settings(workload, context, values):
        made = one.policies(policies)
        rows = summaries(
            one.workload, made, capacity, trials, scv_factor=one.scv_factor, report=None
        )
        lost = rows.groupby("policy")["lost_utility"].mean().round(3).to_dict()
        report(f"{one.parameter}={one.value:g}: {lost}")
        rows.insert(0, "parameter", one.parameter)
        rows.insert(1, "value", float(one.value))
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def margins(summary: pd.DataFrame, leader: str) -> pd.DataFrame:
    """Margin of the leader over the best other policy.

    Columns parameter, value, margin, best_other. The margin is the best other policy's lost utility
    minus the leader's, mean over trials; negative if another policy is better.
    """
    lost = summary.groupby(["parameter", "value", "policy"], sort=False)["lost_utility"]
    mean = lost.mean().unstack("policy")
    if leader not in mean:
        raise ValueError(f"leader={leader!r} is not among the policies: {', '.join(mean)}")
    others = mean.drop(columns=leader)
    table = pd.DataFrame(
        {"margin": others.min(axis=1) - mean[leader], "best_other": others.idxmin(axis=1)}
    )
    order = [name for name in PARAMETERS if name in set(summary["parameter"])]
    return table.sort_index().reindex(order, level="parameter").reset_index()
