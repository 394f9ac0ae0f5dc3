"""A recommendation from a load history: replicas now, and the capacity that the SLOs need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.allocate import OBJECTIVES
from faro_lib.experiments.trials import Report
from faro_lib.policies import Faro, PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.policies.protocol import at_least_one_each
from faro_lib.rayserve.spec import MAX_ONGOING_REQUESTS
from faro_lib.recommend import sizing
from faro_lib.recommend.load_history import MIN_HISTORY_MINUTES, History, history_of
from faro_lib.recommend.now import Advice, advise
from faro_lib.simulate import ServingModel
from faro_lib.simulate.measure import measure
from faro_lib.workload import arrays_of
from faro_lib.workload.jobs import MINUTE_S

MOST_REQUESTS = 20_000_000  # on a day with more requests, fixed replicas are simulated over its replayed part only
REPLAYED_HOURS = 6  # only the busiest part of a longer day is replayed
LIVE = ServingModel("least-outstanding", max_ongoing_requests=MAX_ONGOING_REQUESTS)  # like Ray Serve and service meshes


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Replicas for the coming minutes, and the capacity that a whole day needs.

    Attributes
    ----------
    advice : replicas for the coming minutes.
    max_violation_rate : largest accepted share of a job's requests that violate its SLO; None: 1 - the job's quantile.
    curve : SLO violations of the worst job by capacity (`sizing.COLUMNS`); None if no day was replayed.
    knee : capacity above which additional cores gain little; None if there is none.
    replayed : replayed part of the last day, as "08:00 to 14:00".
    replicas_now : replica counts that serve now, (jobs,), NaN = unknown; None if unknown for every job.
    fixed : a row per job: the smallest constant replica count that keeps its SLO over `minutes` of the last day (0 = none),
        and violation rates with it and with `replicas_now` (`sizing.fixed_replicas`); None if no day was replayed.
    """

    advice: Advice
    max_violation_rate: float | None
    curve: pd.DataFrame | None = None
    knee: int | None = None
    replayed: str = ""
    replicas_now: np.ndarray | None = None
    fixed: pd.DataFrame | None = None

    @property
    def required_cores(self) -> int | None:
        """The smallest replayed capacity that meets every SLO; None if none does or no day was replayed."""
        return None if self.curve is None else sizing.required_cores(self.curve)

    @property
    def slo_met(self) -> bool:
        """Whether the capacity meets the SLOs over the replayed day or, if none was replayed, in the coming minutes."""
        if self.curve is None:
            return bool(self.advice.slo_met.all())
        if self.fixed is not None and (self.fixed["replicas"] == 0).any():
            return False
        own = self.curve[self.curve["capacity_cores"] == self.advice.capacity]
        return bool((own["slo_violation_rate"] <= own["accepted_rate"]).any())

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `Advice.rows`, each with `replicas_now`, the replicas that serve now; None = unknown."""
        known = np.full(len(self.advice.jobs), np.nan) if self.replicas_now is None else self.replicas_now
        now = [int(x) if np.isfinite(x) else None for x in known]
        return [row | {"replicas_now": x} for row, x in zip(self.advice.rows(), now)]

    def to_dict(self) -> dict[str, Any]:
        """The recommendation in plain types, for JSON."""
        now: dict[str, Any] = {"capacity": self.advice.capacity, "used": self.advice.used, "slo_met": self.slo_met}
        now["jobs"] = self.rows()
        if self.curve is None or self.fixed is None:
            return now
        fixed = self.fixed.replace({np.nan: None})
        day = {"max_violation_rate": self.max_violation_rate, "required_cores": self.required_cores, "knee": self.knee}
        return now | day | {"curve": self.curve.to_dict("records"), "fixed": fixed.to_dict("records")}


def recommend(
    history: History,
    capacity: int | None = None,
    *,
    with_curve: bool = False,
    max_violation_rate: float | None = None,
    objective: str = "Sum",
    forecaster: str | None = None,
    serving_model: ServingModel = LIVE,
    replay_hours: int = REPLAYED_HOURS,
    report: Report = print,
) -> Recommendation:
    """Recommend replicas on `capacity` cores or, if None, on the smallest capacity that meets every SLO.

    If `capacity` is None or `with_curve` is true, the busiest `replay_hours` of the last day are replayed at several
    capacities, which gives the curve and the smallest capacity.
    `max_violation_rate` is as in `Recommendation`. `serving_model` is used in the replays and to measure latencies.
    """
    if max_violation_rate is not None and not 0 <= max_violation_rate < 1:
        raise ValueError(f"max_violation_rate={max_violation_rate} must be a share in [0, 1)")
    if capacity is not None:
        at_least_one_each(history.jobs, capacity)
    OBJECTIVES.find(objective)
    with_curve = with_curve or capacity is None
    if history.short and with_curve:
        few = f"{history.today.shape[1]} minutes of counts"
        raise ValueError(f"{few}; a replay needs at least {MIN_HISTORY_MINUTES}; --capacity needs none")
    history.forecaster(forecaster)  # raises for an unknown name before a minute of measuring
    for line in _too_busy(history, capacity):
        report(line)
    if capped := serving_model.capped(history.jobs, history.today):
        report(capped)
    report("measuring latencies of each model and SLO at constant rates")
    latency_model = measure(history.jobs, capacity=capacity, serving_model=serving_model)

    def policy(history: History) -> Faro:
        return tuned(PolicyContext(history.jobs, history.forecaster(forecaster), latency_model), objective)

    if not with_curve:
        assert capacity is not None
        advice = advise(history.jobs, history.today, policy(history), capacity)
        return Recommendation(advice, max_violation_rate, replicas_now=history.replicas)
    quantile = arrays_of(history.jobs).quantile
    accepted = 1 - quantile if max_violation_rate is None else np.full(len(quantile), max_violation_rate)
    curve, knee, replayed, fixed = _replay(history, policy, capacity, accepted, serving_model, replay_hours, report)
    size = capacity or sizing.required_cores(curve) or int(curve["capacity_cores"].max())
    report(f"planning the next minutes on {size} cores")
    advice = advise(history.jobs, history.today, policy(history), size)
    return Recommendation(advice, max_violation_rate, curve, knee, replayed, history.replicas, fixed)


def _replay(
    history: History,
    policy: Callable[[History], Faro],
    capacity: int | None,
    accepted: np.ndarray,
    serving_model: ServingModel,
    hours: int,
    report: Report,
) -> tuple[pd.DataFrame, int | None, str, pd.DataFrame]:
    """(curve, knee, replayed, fixed) of a `Recommendation`, by replaying the busiest `hours` of the last day."""
    part, first = sizing.busiest(history.traces, 60 * hours)
    if history.single_day:
        report(
            "there is no earlier day: the forecaster learns from the replayed one, so the curve is a little optimistic"
        )
    length = part.evaluation.shape[-1]
    replayed = history.span(first, first + length)
    of_day = f"the busiest {hours} hours" if length < history.traces.evaluation.shape[-1] else "all"
    report(f"replaying {replayed} ({of_day} of the last day) at several capacities, which takes a minute or more")
    for name, minute in sizing.peaks_outside(history.traces, first, length).items():
        report(f"{name} peaks outside the replayed part, at {history.clock(minute)}; --replay-hours 36 replays it")
    learned = policy(history_of(part.jobs, part.evaluation[0], earlier=None if history.single_day else part.train))
    day, cores = part.workload(), arrays_of(history.jobs).cores
    whole = history.traces.workload()
    held = whole if whole.requests_per_min.sum() <= MOST_REQUESTS else day
    options = accepted, learned.latency_model, serving_model, history.replicas
    replicas, rates, rates_now = sizing.fixed_replicas(held, *options)
    fixed = pd.DataFrame({"job": part.names, "accepted_rate": accepted, "replicas": replicas, "violation_rate": rates})
    fixed = fixed.assign(violation_rate_now=rates_now, minutes=held.minutes)
    for name in fixed.loc[replicas == 0, "job"]:
        report(f"no number of replicas keeps the SLO of {name}; the capacity is for the other jobs")
    smallest, largest = sizing.capacity_range(day, learned.latency_model)
    capacities = smallest, max(largest, int(np.ceil(replicas @ cores)))
    curve = sizing.violations_by_capacity(
        day, learned, capacities, np.where(replicas > 0, accepted, 1.0), include=capacity,
        serving_model=serving_model, report=report,
    )  # fmt: skip
    return curve, sizing.knee(curve[curve["capacity_cores"] <= max(capacities)]), replayed, fixed


def _too_busy(history: History, capacity: float | None) -> list[str]:
    """One line for each job whose load of the last 15 minutes keeps more replicas busy than the job can have."""
    arrays = arrays_of(history.jobs)
    fitting = arrays.max_replicas if capacity is None else arrays.replicas_within(capacity)
    rates_rps = np.nan_to_num(history.today[:, -15:]).mean(axis=1) / MINUTE_S
    return [
        f"{job.name}: {rate:.1f} requests/s x {job.busy_s:g} s keep {rate * job.busy_s:.0f} replicas busy; {most:g} fit"
        + (f"; service_time_s is in seconds: did you mean {job.service_time_s / 1000:g}?" * (job.service_time_s >= 1))
        for job, rate, most in zip(history.jobs, rates_rps, fitting)
        if rate * job.busy_s > most
    ]
