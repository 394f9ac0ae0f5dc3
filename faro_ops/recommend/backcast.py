"""Reproduce what autoscalers did: calibrate each service on its recorded latencies, then simulate its recorded replicas."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from faro_lib.experiments.trials import uniform_draws
from faro_lib.metrics.measures import violation_rate_by_job
from faro_lib.simulate import Draws, Run, ServingModel, simulate
from faro_lib.simulate.measure import THREADS
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous
from faro_ops.calibrate import LATENCY, NOT_REPRODUCED, Calibration, Measurements, calibrate
from faro_ops.recommend.records import Records
from faro_ops.recommend.shadow import Recorded, ample_capacity, unbounded

STEADY_MINUTES = 3  # a minute is used to calibrate if it is the last of this many minutes with the same replica count
BIN_WIDTH = 1.12  # rates per replica within one row of `Measurements` differ by at most this factor
MIN_MINUTES, MIN_ROWS, MAX_ROWS = (
    5,
    3,
    14,
)  # minimum minutes per row of `Measurements`; minimum and maximum rows
OTHER_KINDS = (
    "serial",
    "concurrent",
    "batched",
)  # replica kinds to try if the one in the jobs table does not fit
OVERHEAD_PROBABILITY = 0.5  # prior probability that requests spend time outside the replicas
MAX_OVERHEAD = (
    0.5  # upper bound of the time outside the replicas, relative to the smallest recorded latency
)
DRAWS = 16
LARGE = 0.1  # the jobs table's service time is reported as wrong if its relative error exceeds this
MIN_INSIDE = 0.5  # a service is not reproduced if less than this share of its latencies is in the predicted interval
SLACK = 0.02  # how far the recorded share of minutes above the SLO may lie outside its predicted interval
NEVER = 1e-3  # an SLO in seconds that is never met; used if the time outside the replicas exceeds the SLO


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """Recorded and simulated latencies of a service. NaN means unknown."""

    job: Job  # the job of the jobs table; a calibration replaces its service parameters by posterior medians
    calibration: Calibration | None
    inside: float  # share of the minutes whose recorded latency was within the predicted interval
    late_minutes: float  # share of the recorded minutes whose latency at the quantile of the SLO exceeded the SLO
    predicted_late_minutes: np.ndarray  # prediction interval (5 %, mean, 95 %) of `late_minutes`
    violation_rate: (
        np.ndarray
    )  # prediction interval (5 %, mean, 95 %) of the share of requests that miss the SLO
    predicted_tail_s: (
        np.ndarray
    )  # (5 %, 50 %, 95 %) of the simulated latency at the SLO's quantile, (minutes, 3)
    refusal: str  # why the service is not reproduced, and what to measure; "" = reproduced
    note: str  # which assumption of the jobs' table is wrong; "" = none


def calibration_of(records: Records, n: int, places: int) -> Calibration | str:
    """Calibrate service n, with max_ongoing_requests = `places`. If this is impossible, return the reason as text."""
    measured, job = steady_minutes(records, n), records.jobs[n]
    if (slo_on := getattr(job.replica, "slo_on", "end_to_end")) != "end_to_end":
        return f"its SLO is on {slo_on}, and an audit simulates latencies end to end only"
    if measured is None:
        enough = f"fewer than {MIN_ROWS} different loads have {MIN_MINUTES} minutes each"
        return f"{enough} with latencies, steady replicas and a steady load; record more hours"
    options: dict[str, Any] = dict(
        max_ongoing_requests=places, overhead_probability=OVERHEAD_PROBABILITY, attempts=1
    )
    options["max_overhead_s"] = MAX_OVERHEAD * float(np.nanmin(measured.values))
    own = job.replica.kind
    lengths = job.replica.of_tokens if isinstance(job.replica, Continuous) else None
    first = calibrate(measured, kinds=(own,), tokens=lengths, **options)
    kinds = [kind for kind in OTHER_KINDS if kind != own and (kind == "serial" or places > 1)]
    if first.verdict != NOT_REPRODUCED or not kinds:
        return first
    others = calibrate(measured, kinds=kinds, **options)
    return first if others.verdict == NOT_REPRODUCED else others


def steady_minutes(records: Records, n: int) -> Measurements | None:
    """Group the steady minutes of service n by load, and average each group. None if fewer than MIN_ROWS groups.

    A minute is steady if its replica count has not changed for STEADY_MINUTES and its request count is close to that of
    the previous minute. The queue is then nearly stationary. All minutes of a group have the same replica count.
    """
    counts, replicas, latency_s = (
        records.history.traces.evaluation[0, n],
        records.replicas[n],
        records.latency_s[:, n],
    )
    counts, latency_s = counts[: len(replicas)], np.where(np.isinf(latency_s), np.nan, latency_s)
    before = np.concatenate([[0], counts[:-1]])
    steady = np.isfinite(latency_s).any(axis=0) & (replicas >= 1) & (counts > 0)
    steady &= np.arange(len(counts)) >= STEADY_MINUTES
    for lag in range(1, STEADY_MINUTES):
        steady &= np.roll(replicas, lag) == replicas
    steady &= np.abs(counts - before) <= 0.25 * before + 3 * np.sqrt(
        before
    )  # allows a trend and Poisson noise
    per_replica = np.log(np.maximum(counts, 1) / np.where(replicas >= 1, replicas, 1)) // np.log(
        BIN_WIDTH
    )
    groups = (
        pd.Series(np.flatnonzero(steady)).groupby([per_replica[steady], replicas[steady]]).agg(list)
    )
    longest = sorted((max(of_rate, key=len) for _, of_rate in groups.groupby(level=0)), key=len)[
        -MAX_ROWS:
    ]
    longest = [minutes for minutes in longest if len(minutes) >= MIN_MINUTES]
    if len(longest) < MIN_ROWS:
        return None
    mean = np.array([counts[minutes].mean() for minutes in longest])
    columns = tuple(
        (LATENCY, None if np.isnan(level) else float(level)) for level in records.levels[:, n]
    )
    values = np.exp(
        [pd.DataFrame(np.log(latency_s[:, minutes])).mean(axis=1) for minutes in longest]
    )
    replicas = np.array([replicas[minutes[0]] for minutes in longest])
    periods = np.array([len(minutes) for minutes in longest])
    return Measurements(
        mean / MINUTE_S, replicas, np.maximum(np.rint(mean), 1), columns, values, periods
    )


def world(
    jobs: Sequence[Job], calibrations: Sequence[Calibration], seed: int
) -> tuple[tuple[Job, ...], Callable[[np.ndarray], np.ndarray]]:
    """Return jobs with parameters drawn from their posteriors, and a function that maps simulated to client latencies.

    The function returns (simulated latency + overhead outside the replicas) x random model error, (jobs, minutes).
    A returned job's SLO is the simulated latency that the function maps to the original SLO.
    """
    rng, drawn = np.random.default_rng(seed), []
    for job, calibration in zip(jobs, calibrations):
        one = calibration.draws[rng.integers(len(calibration.draws))]
        error = np.exp(calibration.discrepancy * rng.standard_normal())
        slo_s = max(job.slo_s / error - one.overhead_s, NEVER)
        drawn.append((replace(job, **one.job_fields, slo_s=float(slo_s)), (error, one.overhead_s)))
    simulated, factors = zip(*drawn)
    error, overhead_s = np.array(factors).T[:, :, None]
    return simulated, lambda latency_s: (latency_s + overhead_s) * error


def run_recorded(
    workload: Workload, draws: Draws, replicas: np.ndarray, model: ServingModel
) -> Run:
    """Simulate the recorded replica counts (jobs, minutes), each of which is the count at the end of its minute.

    The time of a change is drawn from start, middle and end of its minute, once for additions and once for removals.
    """
    free, capacity = (
        unbounded(workload.jobs, cold_start_s=0.0),
        ample_capacity(workload.jobs, replicas.T),
    )
    halves = np.repeat(replicas, 2, axis=1)
    added, removed = np.random.default_rng([draws.seed, 5]).integers(3, size=2)
    both = [
        halves[:, np.maximum(np.arange(halves.shape[1]) - late, 0)] for late in (added, removed)
    ]
    changed = np.minimum(*both) if added >= removed else np.maximum(*both)
    policy = Recorded(changed.T, "recorded", MINUTE_S / 2)
    on = Workload(free, workload.requests_per_min)
    return simulate(on, policy, capacity, draws=draws, serving_model=model, initial=replicas[:, 0])


def known_replicas(replicas: np.ndarray) -> np.ndarray:
    """Replicas (jobs, minutes) as integers. An unknown count becomes the last known one, else the next known one, else 1."""
    return np.rint(pd.DataFrame(replicas.T).ffill().bfill().fillna(1).to_numpy().T).astype(int)


def backcast(
    records: Records, calibrations: Sequence[Calibration | str], model: ServingModel, minutes: slice
) -> tuple[Service, ...]:
    """Simulate the recorded replicas in these minutes, and compare each service's latencies with the recorded ones."""
    fitted = [n for n, one in enumerate(calibrations) if isinstance(one, Calibration)]
    jobs = tuple(records.jobs[n] for n in fitted)
    found = [one for one in calibrations if isinstance(one, Calibration)]
    counts = records.history.traces.evaluation[0][:, minutes]
    recorded_s = records.tail_s[:, minutes]
    recorded = ~np.isnan(recorded_s) & (counts > 0)
    replicas = known_replicas(records.replicas)[fitted, minutes]

    def simulated(seed: int) -> tuple[list[float], np.ndarray, np.ndarray]:
        drawn, at_clients = world(jobs, found, seed)
        workload = Workload(drawn, counts[fitted])
        run = run_recorded(workload, uniform_draws(workload, seed, model), replicas, model)
        tail_s = at_clients(run.served_tail_latency_s[:, :-1])
        late = [
            _share(row > job.slo_s, seen) for row, job, seen in zip(tail_s, jobs, recorded[fitted])
        ]
        return late, tail_s, violation_rate_by_job(run)

    with ThreadPoolExecutor(THREADS) as pool:
        late, tails, rates = zip(*pool.map(simulated, range(DRAWS))) if fitted else ((), (), ())
    services = []
    for n, (job, calibration) in enumerate(zip(records.jobs, calibrations)):
        share = _share(recorded_s[n] > job.slo_s, recorded[n])
        unknown = np.full(3, np.nan)
        if isinstance(calibration, str):
            nowhere = np.full((counts.shape[1], 3), np.nan)
            services.append(
                Service(job, None, np.nan, share, unknown, unknown, nowhere, calibration, "")
            )
            continue
        at = fitted.index(n)
        predicted = share_interval(np.array(late)[:, at])
        tail_s = pd.DataFrame(np.array(tails)[:, at]).quantile([0.05, 0.5, 0.95]).to_numpy().T
        known = replace(job, **calibration.service.job_fields)
        between = (tail_s[:, 0] <= recorded_s[n]) & (recorded_s[n] <= tail_s[:, 2])
        inside = _share(between, recorded[n] & np.isfinite(recorded_s[n]))
        contradiction = _unlike(share, predicted, inside, int(recorded[n].sum()))
        refusal = "; ".join(filter(None, (contradiction, calibration.reason)))
        violated, note = share_interval(np.array(rates)[:, at]), _wrong_assumption(job, calibration)
        services.append(
            Service(known, calibration, inside, share, predicted, violated, tail_s, refusal, note)
        )
    return tuple(services)


def share_interval(values: np.ndarray) -> np.ndarray:
    """90 % prediction interval (5 %, mean, 95 %) for one more value of a share, given `values` in [0, 1], (draws,)."""
    return np.minimum(positive_interval(values), 1.0)


def positive_interval(values: np.ndarray) -> np.ndarray:
    """90 % prediction interval (5 %, mean, 95 %) for one more value, given `values` >= 0, (draws, ...).

    The interval of sqrt(values) is squared, because the variance of sqrt(values) depends little on the mean.
    """
    low, _, high = np.maximum(prediction_interval(np.sqrt(values)), 0.0) ** 2
    return np.array([low, values.mean(axis=0), high])


def prediction_interval(values: np.ndarray) -> np.ndarray:
    """90 % prediction interval (5 %, 50 %, 95 %) for one more value, given normally distributed `values` (draws, ...)."""
    n, mean = len(values), values.mean(axis=0)
    half = student.ppf(0.95, n - 1) * values.std(axis=0, ddof=1) * np.sqrt(1 + 1 / n)
    return np.array([mean - half, mean, mean + half])


def _share(late: np.ndarray, among: np.ndarray) -> float:
    return float(late[among].mean()) if among.any() else np.nan


def _unlike(share: float, predicted: np.ndarray, inside: float, minutes: int) -> str:
    """Why a service is not reproduced; "" if its recorded latencies agree with the predicted ones."""
    if np.isnan(share):
        return "its latency at the quantile of the SLO was not recorded; record it, or change the quantile"
    remedy = "measure where its requests wait (docs/adopt.md)"
    if inside < MIN_INSIDE:
        return f"only {100 * inside:.0f} % of its {minutes} minutes had a latency in the predicted interval; {remedy}"
    if predicted[0] - SLACK <= share <= predicted[2] + SLACK:
        return ""
    low, _, high = 100 * predicted
    return f"{100 * share:.1f} % of its {minutes} minutes were late, {low:.1f} to {high:.1f} % are predicted; {remedy}"


def _wrong_assumption(job: Job, calibration: Calibration) -> str:
    """Say which value in the jobs table the recorded latencies contradict; "" if none."""
    if calibration.kind != job.replica.kind:
        return f"its replicas are {calibration.kind}, not {job.replica.kind} as in the table"
    low, middle, high = 1 / calibration.capacity_rps[::-1]
    if abs(job.busy_s / middle - 1) <= LARGE or low <= job.busy_s <= high:
        return ""
    of_replica = f"{middle:.3g} s of a replica ({low:.3g} to {high:.3g})"
    return f"a request takes {of_replica}, not {job.busy_s:.3g} s as in the table"
