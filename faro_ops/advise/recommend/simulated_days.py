"""Simulate recorded days: the capacity and the fixed replica counts that keep the SLOs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.experiments.trials import Report
from faro_lib.policies import Faro
from faro_lib.simulate import ServingModel
from faro_lib.workload import Traces, Workload, arrays_of
from faro_ops.advise.recommend import sizing
from faro_ops.advise.sources.history import History, history_of

# If the last day has more requests, only its busiest SIMULATED_HOURS are simulated.
MOST_REQUESTS = 20_000_000
SIMULATED_HOURS = 6
# Simulated before the busiest minutes, so that these do not begin with too few replicas.
RUN_UP_MINUTES = 15
# At most this many earlier days are simulated, too, those with the highest peak load.
EARLIER_DAYS = 3


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedDays:
    """What simulations of recorded days show.

    Attributes
    ----------
    capacity : the given capacity in cores or, if none was given, the required one.
    days : text that names the hours or days simulated, such as "the last 24 hours". Faro and
        constant replicas are judged on all of them, each day by itself.
    curve : SLO violations of the worst job at each simulated capacity (`sizing.COLUMNS`).
    fixed : constant replica counts and their SLO violation rates, one row per job.
        `accepted_rate` : the accepted SLO violation rate.
        `replicas` : smallest count that keeps the SLO on each simulated day; 0 if no count does.
        `minutes` : total length of the simulated days.
        `replicas_on_all_cores` : counts on `capacity` cores that maximise the sum of the jobs' mean
            utilities in the forecaster's training minutes. They are at least `replicas` if the
            capacity is large enough.
        `violation_rate`, `violation_rate_now`, `violation_rate_on_all_cores` : SLO violation rates
            with `replicas`, with the counts that serve now and with `replicas_on_all_cores`.
    variations : the worst job with more load or a failed replica (`sizing.variations`).
    """

    capacity: int
    days: str
    curve: pd.DataFrame
    fixed: pd.DataFrame
    variations: pd.DataFrame

    @property
    def required_cores(self) -> int | None:
        """The smallest simulated capacity that meets every SLO; None if none does."""
        return sizing.required_cores(self.curve)

    @property
    def slo_met(self) -> bool:
        """Whether Faro meets every SLO on `capacity` cores."""
        if (self.fixed["replicas"] == 0).any():  # no number of replicas keeps a job's SLO
            return False
        own = self.curve[self.curve["capacity_cores"] == self.capacity]
        return bool((own["slo_violation_rate"] <= own["accepted_rate"]).any())

    def to_dict(self) -> dict[str, Any]:
        """The required capacity and the tables in plain types, for JSON."""
        return {
            "required_cores": self.required_cores,
            "curve": self.curve.to_dict("records"),
            "fixed": self.fixed.replace({np.nan: None}).to_dict("records"),
            "variations": self.variations.to_dict("records"),
        }


def simulate_days(
    history: History,
    policy_for: Callable[[History], Faro],
    capacity: int | None,
    accepted: np.ndarray,
    serving_model: ServingModel,
    report: Report,
) -> SimulatedDays:
    """Find the replicas and the capacity that the recorded days need, by simulation.

    policy_for : returns Faro with a forecaster that has learnt from a history.
    capacity : cores to simulate and to compare with; None = the required ones.
    accepted : accepted SLO violation rate of each job, (jobs,).
    """
    days = days_to_simulate(history)
    policy = policy_for(days.last)
    if history.single_day:
        report(
            "there is no earlier day: the forecaster learns from the simulated one, "
            "so the curve is a little optimistic"
        )
    others = [(past.traces.workload(), policy_for(past)) for past in days.busiest]
    report(f"simulating {days.text} at several capacities, which takes a few minutes")

    # 1. The fewest constant replicas of each job; 0 if no number keeps its SLO.
    jobs = arrays_of(history.jobs)
    fixed = sizing.fixed_replicas(
        days.every, accepted, policy.latency_model, serving_model, history.replicas
    )
    possible = fixed.replicas > 0  # bool (jobs,)
    for job, keeps in zip(history.jobs, possible):
        if not keeps:
            report(
                f"no number of replicas keeps the SLO of {job.name}; "
                "the capacity is for the other jobs"
            )

    # 2. Constant replicas on so many cores. A simulation of Faro begins with them.
    lowest = np.maximum(jobs.min_replicas, 1)  # (jobs,)
    enough = np.maximum(fixed.replicas, lowest)  # (jobs,)
    smallest_cores = int(np.ceil(lowest @ jobs.cores))
    enough_cores = int(np.ceil(enough @ jobs.cores))
    for line in _short_on(days.not_simulated, enough, accepted, possible, serving_model):
        report(line)

    @cache
    def fixed_on(size: int) -> np.ndarray:
        needed = enough if enough_cores <= size else lowest
        return policy.constant_replicas(history.jobs, size, needed)

    # 3. The smallest capacity with which Faro keeps the SLOs that can be kept.
    last_day = days.every[-1]
    accepted_or_any = np.where(possible, accepted, 1.0)
    curve = sizing.violations_by_capacity(
        last_day,
        policy,
        (smallest_cores, enough_cores),
        accepted_or_any,
        include=capacity,
        others=others,
        start=fixed_on,
        serving_model=serving_model,
        report=report,
    )
    size = capacity or sizing.required_cores(curve) or int(curve["capacity_cores"].max())

    # 4. What both do under more load than recorded.
    on_all_cores = fixed_on(size)
    report(f"simulating the last day on {size} cores {', '.join(sizing.VARIATIONS)}")
    variations = sizing.variations(
        last_day, policy, size, on_all_cores, accepted_or_any, serving_model, fixed_on
    )
    runs = sizing.runs_on(days.every, serving_model)
    table = pd.DataFrame(
        {
            "job": history.traces.names,
            "accepted_rate": accepted,
            "replicas": fixed.replicas,
            "violation_rate": fixed.rates,
            "violation_rate_now": fixed.rates_now,
            "minutes": sum(day.minutes for day in days.every),
            "replicas_on_all_cores": on_all_cores,
            "violation_rate_on_all_cores": sizing.worst_rates(serving_model, runs, on_all_cores),
        }
    )
    return SimulatedDays(size, days.text, curve, table, variations)


def _short_on(
    days: list[Workload],
    counts: np.ndarray,
    accepted: np.ndarray,
    possible: np.ndarray,
    serving_model: ServingModel,
) -> list[str]:
    """A line for each job that misses its SLO with `counts` (jobs,) on a day of `days`."""
    if not days:
        return []
    runs = sizing.runs_on(days, serving_model, seeds=1)
    rates = sizing.worst_rates(serving_model, runs, counts)
    short = np.flatnonzero(possible & (rates > accepted))
    return [
        f"with {counts[j]} fixed replicas, {100 * rates[j]:.2g} % of the requests of "
        f"{days[0].jobs[j].name} are late on a recorded day that is not simulated "
        f"({100 * accepted[j]:.4g} % accepted)"
        for j in short
    ]


@dataclass(frozen=True, slots=True, eq=False)
class DaysToSimulate:
    """The recorded days that are simulated.

    Attributes
    ----------
    last : the history of the last day or, if it has too many requests, of its busiest hours.
    busiest : histories that end with one of the busiest earlier days, the busiest first. Their
        forecasters learn from all other days.
    every : requests of all days that are simulated; the last one is that of `last`.
    not_simulated : requests of the other recorded days.
    text : names the hours or days simulated.
    """

    last: History
    busiest: list[History]
    every: list[Workload]
    not_simulated: list[Workload]
    text: str


def days_to_simulate(history: History) -> DaysToSimulate:
    """Choose the days that are simulated.

    If the days together exceed MOST_REQUESTS requests, the oldest ones are left out. If the last
    day alone exceeds MOST_REQUESTS, only its busiest hours are simulated, and no other day.
    """
    traces = history.traces
    if traces.evaluation.sum() > MOST_REQUESTS:
        part, first = busiest_part(traces, 60 * SIMULATED_HOURS)
        hours = history_of(part.jobs, part.evaluation[0], earlier=part.train)
        span = history.span(first, first + hours.day_minutes)
        return DaysToSimulate(hours, [], [part.workload()], [], f"{span}, the busiest,")

    last_day = traces.workload()
    text = f"the last {last_day.minutes / 60:.3g} hours"
    if history.single_day:
        return DaysToSimulate(history, [], [last_day], [], text)

    requests = traces.train[:, 0].sum(axis=(1, 2))  # (days,)
    room = MOST_REQUESTS - traces.evaluation.sum()
    fitting = requests[::-1].cumsum() <= room  # from the newest day on
    earlier = range(traces.days - int(fitting.sum()), traces.days)
    jobs = arrays_of(history.jobs)
    load = (jobs.busy_s * jobs.cores) @ traces.train[:, 0]  # core-seconds, (days, minutes)
    by_peak = sorted(earlier, key=lambda day: load[day].max())
    busiest = [_as_last(history, day) for day in reversed(by_peak[-EARLIER_DAYS:])]
    every = [*(past.traces.workload() for past in busiest), last_day]
    not_simulated = [traces.workload(day + 1) for day in by_peak[:-EARLIER_DAYS]]
    if busiest and len(busiest) == traces.days:
        text = f"all {history.days} days"
    elif busiest:
        text = f"{text} and the {len(busiest)} busiest earlier days"
    return DaysToSimulate(history, busiest, every, not_simulated, text)


def _as_last(history: History, day: int) -> History:
    """The history in which training day `day` is the last day, and all other days are earlier."""
    traces = history.traces
    others = np.delete(traces.train, day, axis=0)  # (days, samples, jobs, minutes)
    last = np.broadcast_to(traces.evaluation[None], traces.train[:1].shape)
    return history_of(history.jobs, traces.train[day, 0], earlier=np.concatenate([others, last]))


def busiest_part(traces: Traces, minutes: int) -> tuple[Traces, int]:
    """Cut the evaluation day to its busiest minutes and a run-up to them.

    Returns (traces, first minute that is kept). `minutes` includes the run-up. Training days keep
    their length, but are rotated to begin at the first minute kept.
    """
    jobs = arrays_of(traces.jobs)
    load = (jobs.busy_s * jobs.cores) @ traces.evaluation[0]  # core-seconds, (minutes,)
    if minutes >= len(load):
        return traces, 0
    run_up = min(RUN_UP_MINUTES, minutes // 2)
    # Load of each window without its run-up, rounded, so that the first of equal sums wins.
    windows = np.convolve(load[run_up:], np.ones(minutes - run_up), "valid").round(6)
    first = int(windows.argmax())
    rolled = np.roll(traces.train, -first, axis=-1)
    times = traces.workload().between(first, first + minutes).arrival_s
    part = Traces(traces.jobs, rolled, traces.evaluation[..., first : first + minutes], times)
    return part, first
