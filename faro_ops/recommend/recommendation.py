"""A recommendation from a load history: replicas now, and the capacity that the SLOs need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.allocate import OBJECTIVES
from faro_lib.experiments.trials import Report
from faro_lib.policies import Faro, PolicyContext
from faro_lib.policies.advice import Advice, advise
from faro_lib.policies.faro import tuned, with_idle_cores
from faro_lib.policies.protocol import at_least_one_each
from faro_lib.simulate import ServingModel
from faro_lib.simulate.measure import measure
from faro_lib.workload import arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.rayserve.spec import MAX_ONGOING_REQUESTS
from faro_ops.recommend import sizing
from faro_ops.recommend.load_history import MIN_HISTORY_MINUTES, History, history_of

MOST_REQUESTS = (
    20_000_000  # if the last day has more requests, only its busiest REPLAYED_HOURS are replayed
)
REPLAYED_HOURS = 6
EARLIER_DAYS = 3  # a capacity is also tested on at most this many earlier days, those with the highest peak load
# `_silences` reports a gap whose expected requests are >= MISSED and >= UNUSUAL times those of every other gap.
MISSED, UNUSUAL = 50, 4
LIVE = ServingModel(
    "least-outstanding", max_ongoing_requests=MAX_ONGOING_REQUESTS
)  # like Ray Serve and service meshes


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Replicas for the coming minutes, and the capacity that the replayed days need.

    Attributes
    ----------
    advice : replicas for the coming minutes.
    max_violation_rate : largest accepted share of a job's requests that violate its SLO; None = 1 - the SLO's quantile.
    curve : SLO violations of the worst job at each replayed capacity (`sizing.COLUMNS`); None if no day was replayed.
    replayed : text that names the hours or days replayed, such as "the last 24 hours".
    replicas_now : replica counts that serve now, (jobs,), NaN = unknown; None if unknown for every job.
    fixed : constant replica counts and their SLO violation rates, one row per job; None if no day was replayed.
        `replicas` : smallest count that keeps the SLO on all simulated days; 0 if no count does.
        `minutes` : total length of the simulated days.
        `replicas_on_all_cores` : counts on `advice.capacity` cores that maximise the sum of the jobs' mean utilities in
            the forecaster's training minutes. They are at least `replicas` if the capacity is large enough.
        `violation_rate`, `violation_rate_now`, `violation_rate_on_all_cores` : SLO violation rates with `replicas`,
            with `replicas_now` and with `replicas_on_all_cores`.
    variations : the worst job with more load or a failed replica (`sizing.variations`); None if no day was replayed.
    """

    advice: Advice
    max_violation_rate: float | None
    curve: pd.DataFrame | None = None
    replayed: str = ""
    replicas_now: np.ndarray | None = None
    fixed: pd.DataFrame | None = None
    variations: pd.DataFrame | None = None

    @property
    def required_cores(self) -> int | None:
        """The smallest replayed capacity that meets every SLO; None if none does or no day was replayed."""
        return None if self.curve is None else sizing.required_cores(self.curve)

    @property
    def marks(self) -> dict[int, str]:
        """Text that marks the required capacity in the curve, {capacity: text}. Empty if `required_cores` is None."""
        rate, required = self.max_violation_rate, self.required_cores
        text = "meets every SLO" if rate is None else f"meets {100 * rate:g} % for every job"
        return {} if required is None else {required: text}

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
        known = (
            np.full(len(self.advice.jobs), np.nan)
            if self.replicas_now is None
            else self.replicas_now
        )
        now = [int(x) if np.isfinite(x) else None for x in known]
        return [row | {"replicas_now": x} for row, x in zip(self.advice.rows(), now)]

    def to_dict(self) -> dict[str, Any]:
        """The recommendation in plain types, for JSON."""
        now: dict[str, Any] = {
            "capacity": self.advice.capacity,
            "used": self.advice.used,
            "slo_met": self.slo_met,
        }
        now["jobs"] = self.rows()
        if self.curve is None or self.fixed is None or self.variations is None:
            return now
        tables = {
            "curve": self.curve,
            "fixed": self.fixed.replace({np.nan: None}),
            "variations": self.variations,
        }
        day = {"max_violation_rate": self.max_violation_rate, "required_cores": self.required_cores}
        return now | day | {name: table.to_dict("records") for name, table in tables.items()}


def recommend(
    history: History,
    capacity: int | None = None,
    *,
    with_curve: bool = False,
    max_violation_rate: float | None = None,
    objective: str = "Sum",
    forecaster: str | None = None,
    serving_model: ServingModel = LIVE,
    report: Report = print,
) -> Recommendation:
    """Recommend replicas on `capacity` cores or, if None, on the smallest capacity that meets every SLO.

    If `capacity` is None or `with_curve` is true, days are replayed at several capacities for `Recommendation.curve`.
    `max_violation_rate` is the largest accepted share of a job's requests that miss its SLO; None = 1 - its quantile.
    """
    if max_violation_rate is not None and not 0 <= max_violation_rate < 1:
        raise ValueError(f"max_violation_rate={max_violation_rate} must be a share in [0, 1)")
    if capacity is not None:
        at_least_one_each(history.jobs, capacity)
    OBJECTIVES.find(objective)
    if history.short and (with_curve or capacity is None):
        few = f"{history.today.shape[1]} minutes of counts"
        raise ValueError(
            f"{few}; a replay needs at least {MIN_HISTORY_MINUTES}; --capacity needs none"
        )
    fitted = history.forecaster(
        forecaster
    )  # an unknown name must fail before the measurements, which take a minute
    for line in (*_too_busy(history, capacity), *_silences(history)):
        report(line)
    if capped := serving_model.capped(history.jobs, history.today):
        report(capped)
    report("measuring latencies of each model and SLO at constant rates")
    latency_model = measure(history.jobs, capacity=capacity, serving_model=serving_model)

    def policy(of: History) -> Faro:
        forecasts = fitted if of is history else of.forecaster(forecaster)
        return tuned(PolicyContext(of.jobs, forecasts, latency_model), objective)

    replays: dict[str, Any] = {}
    if with_curve or capacity is None:
        quantile = arrays_of(history.jobs).quantile
        accepted = (
            1 - quantile
            if max_violation_rate is None
            else np.full(len(quantile), max_violation_rate)
        )
        capacity, replays = _replay(history, policy, capacity, accepted, serving_model, report)
        report(f"planning the next minutes on {capacity} cores")
    advice = advise(history.jobs, history.today, policy(history), capacity)
    return Recommendation(advice, max_violation_rate, replicas_now=history.replicas, **replays)


def _replay(
    history: History,
    policy: Callable[[History], Faro],
    capacity: int | None,
    accepted: np.ndarray,
    serving_model: ServingModel,
    report: Report,
) -> tuple[int, dict[str, Any]]:
    """Return the capacity in cores, and the `Recommendation` attributes curve, replayed, fixed, variations in a dict.

    `curve` is from the last day and the EARLIER_DAYS busiest earlier days. The forecaster for the replay of an earlier
    day is fitted to all other days. `fixed` is from all days. If all days together exceed MOST_REQUESTS requests, the
    oldest days are left out. If the last day alone exceeds MOST_REQUESTS, only its busiest hours are replayed.
    """
    traces, jobs, others = history.traces, arrays_of(history.jobs), []
    few = traces.evaluation.sum() <= MOST_REQUESTS
    part, first = sizing.busiest(
        traces, traces.evaluation.shape[-1] if few else 60 * REPLAYED_HOURS
    )
    day = part.workload()
    learned = policy(
        history if few else history_of(part.jobs, part.evaluation[0], earlier=part.train)
    )
    busy_hours = f"{history.span(first, first + day.minutes)}, the busiest,"
    replayed = f"the last {day.minutes / 60:.3g} hours" if few else busy_hours
    earlier = [] if history.single_day or not few else list(range(traces.days))
    while earlier and traces.train[earlier, 0].sum() + traces.evaluation.sum() > MOST_REQUESTS:
        earlier.pop(0)
    if history.single_day:
        learns = "the forecaster learns from the replayed one, so the curve is a little optimistic"
        report(f"there is no earlier day: {learns}")
    peaks = ((jobs.busy_s * jobs.cores) @ traces.train[:, 0]).max(
        axis=1
    )  # peak load of each training day
    busiest = sorted(earlier, key=lambda n: peaks[n])[-EARLIER_DAYS:]
    for n in reversed(busiest):
        last = np.broadcast_to(
            traces.evaluation[None], traces.train[:1].shape
        )  # in the shape of one training day
        rest = np.concatenate([np.delete(traces.train, n, axis=0), last])
        one = traces.workload(n + 1)
        others.append((one, policy(history_of(history.jobs, one.requests_per_min, earlier=rest))))
    if busiest:
        every = len(busiest) == traces.days
        replayed = (
            f"all {history.days} days"
            if every
            else f"{replayed} and the {len(busiest)} busiest earlier days"
        )
    report(f"replaying {replayed} at several capacities, which takes a few minutes")
    days = [*(traces.workload(n + 1) for n in earlier), day]
    options = accepted, learned.latency_model, serving_model, history.replicas
    replicas, rates, rates_now = sizing.fixed_replicas(days, *options)
    fixed = pd.DataFrame(
        {
            "job": part.names,
            "accepted_rate": accepted,
            "replicas": replicas,
            "violation_rate": rates,
        }
    )
    fixed = fixed.assign(violation_rate_now=rates_now, minutes=day.minutes * len(days))
    for name in fixed.loc[replicas == 0, "job"]:
        report(f"no number of replicas keeps the SLO of {name}; the capacity is for the other jobs")
    lowest = np.maximum(jobs.min_replicas, 1)
    smallest, enough = (
        int(np.ceil(count @ jobs.cores)) for count in (lowest, np.maximum(replicas, lowest))
    )
    accepted = np.where(replicas > 0, accepted, 1.0)
    curve = sizing.violations_by_capacity(
        day,
        learned,
        (smallest, enough),
        accepted,
        include=capacity,
        others=others,
        serving_model=serving_model,
        report=report,
    )
    size = capacity or sizing.required_cores(curve) or int(curve["capacity_cores"].max())
    needed, past_rps = (
        np.maximum(replicas, lowest) if enough <= size else lowest,
        learned.forecaster.past / MINUTE_S,
    )
    spent = with_idle_cores(part.jobs, needed, past_rps, size, learned.latency_model, needed)
    report(f"replaying the last day on {size} cores {', '.join(sizing.VARIATIONS)}")
    variations = sizing.variations(day, learned, size, spent, accepted, serving_model)
    rates = sizing.worst_rates(serving_model, sizing.runs_on(days, serving_model), spent)
    fixed = fixed.assign(replicas_on_all_cores=spent, violation_rate_on_all_cores=rates)
    return size, {"curve": curve, "replayed": replayed, "fixed": fixed, "variations": variations}


def _too_busy(history: History, capacity: float | None) -> list[str]:
    """One line for each job whose load of the last 15 minutes keeps more replicas busy than the job can have."""
    arrays = arrays_of(history.jobs)
    fitting = arrays.max_replicas if capacity is None else arrays.replicas_within(capacity)
    rates_rps = np.nan_to_num(history.today[:, -15:]).mean(axis=1) / MINUTE_S
    return [
        f"{job.name}: {rate:.1f} requests/s x {job.busy_s:g} s keep {rate * job.busy_s:.0f} replicas busy; {most:g} fit"
        + (
            f"; service_time_s is in seconds: did you mean {job.service_time_s / 1000:g}?"
            * (job.service_time_s >= 1)
        )
        for job, rate, most in zip(history.jobs, rates_rps, fitting)
        if rate * job.busy_s > most
    ]


def _silences(history: History) -> list[str]:
    """One line for each job with a gap (consecutive minutes without requests) that may be due to missing records.

    A gap's expected requests are its length times the mean rate of the hour before or after, whichever is lower. A gap is
    reported if its expected requests are at least MISSED, and at least UNUSUAL times those of every other gap of the job.
    """
    earlier: list[np.ndarray] = [] if history.single_day else [*history.traces.train[:, 0]]
    days, lines = [*earlier, history.traces.evaluation[0]], []
    for job, counts in zip(history.jobs, np.concatenate(days, axis=1)):
        edges = np.flatnonzero(np.diff(np.pad(counts == 0, 1)))
        gaps = [
            (
                min(counts[max(0, first - 60) : first].mean(), counts[end : end + 60].mean())
                * (end - first),
                first,
                end,
            )
            for first, end in zip(edges[::2], edges[1::2])
            if first > 0 and end < len(counts)
        ]
        (other, *_), (missed, first, end) = sorted([(0.0, 0, 0), (0.0, 0, 0), *gaps])[-2:]
        if missed >= max(MISSED, UNUSUAL * other):
            when = history.moment(*divmod(int(first), days[0].shape[1]))
            found = f"{job.name}: no requests in {end - first} minutes from {when}, where {missed:.0f} were usual"
            lines += [f"{found}; if they were not recorded, delete these rows"]
    return lines
