"""From a history to what is recommended: replicas now, and the capacity that the promises need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from faro_lib.allocate import OBJECTIVES
from faro_lib.policies import Faro, PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.queueing import LatencyTable
from faro_lib.recommend.capacity import busiest, curve, knee, needed, sizes_worth_trying
from faro_lib.recommend.load_history import MIN_HISTORY_MINUTES, History, history_of
from faro_lib.recommend.now import Advice, advise
from faro_lib.simulate import ServingModel
from faro_lib.simulate.measure import measure

REPLAYED_MIN = 360  # of a longer day its busiest part is replayed


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What is recommended.

    Attributes
    ----------
    advice : replicas for the minutes to come.
    curve : SLO violations by cluster size (`capacity.COLUMNS`), None if it was not asked for.
    violations : the rate that is wanted.
    knee : where more capacity stops to pay, among the sizes worth trying: one that was asked about does not move it.
    """

    advice: Advice
    curve: pd.DataFrame | None
    violations: float
    knee: int | None = None

    @property
    def needed(self) -> int | None:
        """The smallest size that keeps the rate over the replayed day."""
        return None if self.curve is None else needed(self.curve, self.violations)

    @property
    def reached(self) -> bool:
        """Whether the capacity keeps the SLOs: over the day if it was replayed, else of every job in the minutes to come."""
        if self.curve is None:
            return bool(self.advice.kept.all())
        return self.needed is not None and self.needed <= self.advice.capacity

    def told(self) -> dict[str, Any]:
        """All of it in plain types."""
        now: dict[str, Any] = {"capacity": self.advice.capacity, "used": self.advice.used, "reached": self.reached}
        now["jobs"] = self.advice.rows()
        if self.curve is None:
            return now
        return now | {
            "violations": self.violations,
            "needed": self.needed,
            "knee": self.knee,
            "curve": self.curve.to_dict("records"),
        }


def recommend(
    history: History,
    replicas: int | None = None,
    *,
    with_curve: bool = False,
    violations: float = 0.01,
    objective: str = "Sum",
    forecaster: str | None = None,
    serving_model: ServingModel = ServingModel("least-outstanding"),  # noqa: B008
    report: Callable[[str], None] = print,
) -> Recommendation:
    """What to run now, on `replicas` cores; without them, on as many as keep `violations` over the replayed day.

    Parameters
    ----------
    serving_model : how requests are dispatched, in the replay and where latencies are measured.
    """
    if not 0 <= violations < 1:
        raise ValueError(f"violations={violations} must be a share in [0, 1)")
    if replicas is not None and replicas < 1:
        raise ValueError(f"replicas={replicas} must be at least 1")
    OBJECTIVES.find(objective)
    if history.short and (with_curve or replicas is None):
        n = history.today.shape[1]
        raise ValueError(
            f"{n} minutes of counts; at least {MIN_HISTORY_MINUTES} are needed for a replay; with --replicas none are"
        )
    history.forecaster(forecaster)  # a name that nobody knows is refused now, not after the minute that the rest takes
    report("measuring latencies of each kind of jobs and promise at constant rates")
    latency_model = measure(history.jobs, minutes=20, serving_model=serving_model)
    policy = _policy(history, latency_model, objective, forecaster)
    table, bend, size = None, None, replicas
    if with_curve or replicas is None:
        table, bend = _replayed(
            history, latency_model, objective, forecaster, violations, replicas, serving_model, report
        )
        size = replicas or needed(table, violations) or int(table["capacity_cores"].max())
    assert size is not None
    return Recommendation(advise(history.jobs, history.today, policy, size), table, violations, bend)


def _policy(history: History, latency_model: LatencyTable, objective: str, forecaster: str | None) -> Faro:
    return tuned(PolicyContext(history.jobs, history.forecaster(forecaster), latency_model), objective)


def _replayed(history, latency_model, objective, forecaster, violations, replicas, serving_model, report):
    """The curve over the busiest part of the last day, and its knee."""
    day, first = busiest(history.traces, REPLAYED_MIN)
    if history.single_day:
        report("there is no earlier day: what is replayed was learnt from, so the curve flatters a little")
    report(f"replaying minutes {first} to {first + day.evaluation.shape[-1]} of the last day")
    learnt = history_of(day.jobs, day.evaluation[0], earlier=None if history.single_day else day.train)
    policy = _policy(learnt, latency_model, objective, forecaster)
    workload = day.workload()
    sizes = sizes_worth_trying(workload, policy.latency_model)
    table = curve(workload, policy, sizes, violations, include=replicas, serving_model=serving_model, report=report)
    return table, knee(table[table["capacity_cores"] <= max(sizes)])
