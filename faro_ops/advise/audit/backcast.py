"""Reproduce what autoscalers did.

Calibrate each service on its recorded latencies, then simulate its recorded replicas.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from faro_lib.simulate import Draws, Run, ServingModel, simulate
from faro_lib.simulate.table_minutes import THREADS
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.advise.audit.shadow import Recorded, ample_capacity, unbounded
from faro_ops.advise.calibrate import (
    LATENCY,
    NOT_REPRODUCED,
    Calibration,
    Measurements,
    calibrate,
    tokens_of,
)
from faro_ops.advise.recommend.sizing import uniform_draws, violation_rate_by_job
from faro_ops.advise.sources.serving_history import ServingHistory

# A minute is used to calibrate if it is the last of this many minutes with the same replica count.
STEADY_MINUTES = 3
BIN_WIDTH = 1.12  # rates per replica within one row of `Measurements` differ by at most this factor
MIN_MINUTES = 5  # minimum minutes per row of `Measurements`
MIN_ROWS = 3
MAX_ROWS = 14
# Replica kinds to try if the one in the jobs table does not fit.
OTHER_KINDS = ("serial", "concurrent", "batched")
OVERHEAD_PROBABILITY = 0.5  # prior probability that requests spend time outside the replicas
# Upper bound of the time outside the replicas, relative to the smallest recorded latency.
MAX_OVERHEAD = 0.5
DRAWS = 16
LARGE = 0.1  # the jobs table's service time is reported as wrong if its relative error exceeds this
# A service is not reproduced if less than this share of its latencies is in the predicted interval.
MIN_INSIDE = 0.5
# How far the recorded share of minutes above the SLO may lie outside its predicted interval.
SLACK = 0.02
# An SLO in seconds that is never met; used if the time outside the replicas exceeds the SLO.
NEVER = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """Recorded and simulated latencies of a service. NaN means unknown.

    Attributes
    ----------
    job : the job of the jobs table; a calibration replaces its service parameters by posterior
        medians.
    inside : share of the minutes whose recorded latency was within the predicted interval.
    late_minutes : share of the recorded minutes whose latency at the quantile of the SLO exceeded
        the SLO.
    predicted_late_minutes : prediction interval (5 %, mean, 95 %) of `late_minutes`.
    violation_rate : prediction interval (5 %, mean, 95 %) of the share of requests that miss the
        SLO.
    predicted_tail_s : (5 %, 50 %, 95 %) of the simulated latency at the SLO's quantile,
        (minutes, 3).
    refusal : why the service is not reproduced, and what to measure; "" = reproduced.
    note : which assumption of the jobs' table is wrong; "" = none.
    """

    job: Job
    calibration: Calibration | None
    inside: float
    late_minutes: float
    predicted_late_minutes: np.ndarray
    violation_rate: np.ndarray
    predicted_tail_s: np.ndarray
    refusal: str
    note: str


def calibration_of(serving: ServingHistory, n: int, places: int) -> Calibration | str:
    """Calibrate service n, with max_ongoing_requests = `places`.

    If this is impossible, return the reason as text.
    """
    job = serving.jobs[n]
    slo_on = getattr(job.replica, "slo_on", "end_to_end")
    if slo_on != "end_to_end":
        return f"its SLO is on {slo_on}, and an audit simulates latencies end to end only"
    measured = steady_minutes(serving, n)
    if measured is None:
        enough = f"fewer than {MIN_ROWS} different loads have {MIN_MINUTES} minutes each"
        return f"{enough} with latencies, steady replicas and a steady load; record more hours"
    options: dict[str, Any] = {
        "max_ongoing_requests": places,
        "overhead_probability": OVERHEAD_PROBABILITY,
        "attempts": 1,
        "max_overhead_s": MAX_OVERHEAD * float(np.nanmin(measured.values)),
    }
    own = job.replica.kind
    first = calibrate(measured, kinds=(own,), tokens=tokens_of(job.replica), **options)
    kinds = [kind for kind in OTHER_KINDS if kind != own and (kind == "serial" or places > 1)]
    if first.verdict != NOT_REPRODUCED or not kinds:
        return first
    others = calibrate(measured, kinds=kinds, **options)
    return first if others.verdict == NOT_REPRODUCED else others


def steady_minutes(serving: ServingHistory, n: int) -> Measurements | None:
    """Group the steady minutes of service n by load, and average each group.

    A minute is steady if its replica count has not changed for STEADY_MINUTES and its request count
    is close to that of the previous minute. The queue is then nearly stationary. All minutes of a
    group have the same replica count. None if fewer than MIN_ROWS groups.
    """
    replicas = serving.replicas[n]  # (minutes,)
    counts = serving.history.traces.evaluation[0, n][: len(replicas)]  # (minutes,)
    latency_s = serving.latency_s[:, n]  # (columns, minutes)
    latency_s = np.where(np.isinf(latency_s), np.nan, latency_s)

    steady = np.isfinite(latency_s).any(axis=0) & (replicas >= 1) & (counts > 0)
    steady &= np.arange(len(counts)) >= STEADY_MINUTES
    for lag in range(1, STEADY_MINUTES):
        steady &= np.roll(replicas, lag) == replicas
    before = np.concatenate([[0], counts[:-1]])
    # This allows a trend and Poisson noise.
    steady &= np.abs(counts - before) <= 0.25 * before + 3 * np.sqrt(before)

    groups = _longest_groups(counts, replicas, np.flatnonzero(steady))
    if len(groups) < MIN_ROWS:
        return None
    mean = np.array([counts[minutes].mean() for minutes in groups])
    columns = tuple(
        (LATENCY, None if np.isnan(level) else float(level)) for level in serving.levels[:, n]
    )
    log_s = [pd.DataFrame(np.log(latency_s[:, minutes])).mean(axis=1) for minutes in groups]
    return Measurements(
        rate_rps=mean / MINUTE_S,
        replicas=np.array([replicas[minutes[0]] for minutes in groups]),
        requests=np.maximum(np.rint(mean), 1),
        columns=columns,
        values=np.exp(log_s),
        periods=np.array([len(minutes) for minutes in groups]),
    )


def _longest_groups(
    counts: np.ndarray, replicas: np.ndarray, minutes: np.ndarray
) -> list[list[int]]:
    """Groups of `minutes` with nearly the same rate per replica and the same replica count.

    Of the groups with one rate, the longest is taken. At most MAX_ROWS groups are returned, the
    longest, and none with fewer than MIN_MINUTES minutes.
    """
    per_replica = np.maximum(counts, 1) / np.where(replicas >= 1, replicas, 1)
    rate_bin = np.log(per_replica) // np.log(BIN_WIDTH)
    groups = pd.Series(minutes).groupby([rate_bin[minutes], replicas[minutes]]).agg(list)
    of_rate = [max(group, key=len) for _, group in groups.groupby(level=0)]
    longest = sorted(of_rate, key=len)[-MAX_ROWS:]
    return [group for group in longest if len(group) >= MIN_MINUTES]


def world(
    jobs: Sequence[Job], calibrations: Sequence[Calibration], seed: int
) -> tuple[tuple[Job, ...], Callable[[np.ndarray], np.ndarray]]:
    """Return jobs with parameters from their posteriors, and a function for latencies at clients.

    The function maps simulated latencies (jobs, minutes) to (simulated latency + overhead outside
    the replicas) x random model error. A returned job's SLO is the simulated latency that the
    function maps to the original SLO.
    """
    rng = np.random.default_rng(seed)
    drawn, errors, overheads_s = [], [], []
    for job, calibration in zip(jobs, calibrations):
        one = calibration.draws[rng.integers(len(calibration.draws))]
        error = np.exp(calibration.discrepancy * rng.standard_normal())
        slo_s = max(job.slo_s / error - one.overhead_s, NEVER)
        drawn.append(replace(job, **one.job_fields, slo_s=float(slo_s)))
        errors.append(error)
        overheads_s.append(one.overhead_s)
    error = np.array(errors)[:, None]  # (jobs, 1)
    overhead_s = np.array(overheads_s)[:, None]  # (jobs, 1)
    return tuple(drawn), lambda latency_s: (latency_s + overhead_s) * error


def run_recorded(
    workload: Workload, draws: Draws, replicas: np.ndarray, model: ServingModel
) -> Run:
    """Simulate the recorded replica counts (jobs, minutes).

    Each is the count at the end of its minute. The time of a change is drawn from start, middle and
    end of its minute, once for additions and once for removals.
    """
    halves = np.repeat(replicas, 2, axis=1)  # (jobs, half minutes)
    rng = np.random.default_rng([draws.seed, 5])
    added, removed = rng.integers(3, size=2)  # half minutes late
    half = np.arange(halves.shape[1])
    if_added = halves[:, np.maximum(half - added, 0)]
    if_removed = halves[:, np.maximum(half - removed, 0)]
    later_added = added >= removed
    changed = np.minimum(if_added, if_removed) if later_added else np.maximum(if_added, if_removed)
    policy = Recorded(changed.T, "recorded", MINUTE_S / 2)
    return simulate(
        Workload(unbounded(workload.jobs, cold_start_s=0.0), workload.requests_per_min),
        policy,
        ample_capacity(workload.jobs, replicas.T),
        draws=draws,
        serving_model=model,
        initial=replicas[:, 0],
    )


def known_replicas(replicas: np.ndarray) -> np.ndarray:
    """Replicas (jobs, minutes) as integers.

    An unknown count becomes the last known one, else the next known one, else 1.
    """
    known = pd.DataFrame(replicas.T).ffill().bfill().fillna(1).to_numpy().T
    return np.rint(known).astype(int)


def backcast(
    serving: ServingHistory,
    calibrations: Sequence[Calibration | str],
    model: ServingModel,
    minutes: slice,
) -> tuple[Service, ...]:
    """Simulate the recorded replicas in these minutes, and compare with the recorded latencies."""
    counts = serving.history.traces.evaluation[0][:, minutes]  # (jobs, minutes)
    recorded_s = serving.tail_s[:, minutes]
    seen = ~np.isnan(recorded_s) & (counts > 0)  # bool (jobs, minutes)
    calibrated = [n for n, one in enumerate(calibrations) if isinstance(one, Calibration)]
    jobs = tuple(serving.jobs[n] for n in calibrated)
    of_jobs = [one for one in calibrations if isinstance(one, Calibration)]
    replicas = known_replicas(serving.replicas)[calibrated, minutes]
    day = serving.history.traces.workload()
    times = day.between(minutes.start, minutes.stop).arrival_s
    of_calibrated = tuple(times[n] for n in calibrated) if times else ()

    def simulated(seed: int) -> tuple[list[float], np.ndarray, np.ndarray]:
        """Of each calibrated job: share of late minutes, tail latencies, SLO violation rate."""
        drawn, at_clients = world(jobs, of_jobs, seed)
        workload = Workload(drawn, counts[calibrated], of_calibrated)
        run = run_recorded(workload, uniform_draws(workload, seed, model), replicas, model)
        tail_s = at_clients(run.served_tail_latency_s[:, :-1])  # (jobs, minutes)
        late = [
            _share(of_job > job.slo_s, among)
            for of_job, job, among in zip(tail_s, jobs, seen[calibrated])
        ]
        return late, tail_s, violation_rate_by_job(run)

    late = tails_s = rates = np.empty((0, 0))  # (draws, jobs, ...), as `simulated` returns them
    if calibrated:
        with ThreadPoolExecutor(THREADS) as pool:
            late, tails_s, rates = map(np.array, zip(*pool.map(simulated, range(DRAWS))))
    services = []
    for n, (job, calibration) in enumerate(zip(serving.jobs, calibrations)):
        if isinstance(calibration, str):
            late_minutes = _share(recorded_s[n] > job.slo_s, seen[n])
            services.append(_not_calibrated(job, late_minutes, counts.shape[1], calibration))
            continue
        at = calibrated.index(n)
        of_draws = late[:, at], tails_s[:, at], rates[:, at]
        services.append(_compared(job, calibration, recorded_s[n], seen[n], *of_draws))
    return tuple(services)


def _not_calibrated(job: Job, late_minutes: float, minutes: int, refusal: str) -> Service:
    unknown = np.full(3, np.nan)
    nowhere = np.full((minutes, 3), np.nan)
    return Service(job, None, np.nan, late_minutes, unknown, unknown, nowhere, refusal, "")


def _compared(
    job: Job,
    calibration: Calibration,
    recorded_s: np.ndarray,
    seen: np.ndarray,
    late: np.ndarray,
    tails_s: np.ndarray,
    rates: np.ndarray,
) -> Service:
    """Compare a service's recorded latencies (minutes,) with those of the draws.

    seen : minutes with requests and a recorded latency, bool (minutes,).
    late, rates : share of late minutes and SLO violation rate of each draw, (draws,).
    tails_s : simulated tail latencies, (draws, minutes).
    """
    low_s, middle_s, high_s = pd.DataFrame(tails_s).quantile([0.05, 0.5, 0.95]).to_numpy()
    between = (low_s <= recorded_s) & (recorded_s <= high_s)
    inside = _share(between, seen & np.isfinite(recorded_s))
    late_minutes = _share(recorded_s > job.slo_s, seen)
    predicted = share_interval(late)
    contradiction = _unlike(late_minutes, predicted, inside, int(seen.sum()))
    return Service(
        job=replace(job, **calibration.service.job_fields),
        calibration=calibration,
        inside=inside,
        late_minutes=late_minutes,
        predicted_late_minutes=predicted,
        violation_rate=share_interval(rates),
        predicted_tail_s=np.stack([low_s, middle_s, high_s], axis=1),
        refusal="; ".join(filter(None, (contradiction, calibration.reason))),
        note=_wrong_assumption(job, calibration),
    )


def share_interval(values: np.ndarray) -> np.ndarray:
    """90 % prediction interval (5 %, mean, 95 %) for one more share, given `values` (draws,)."""
    return np.minimum(positive_interval(values), 1.0)


def positive_interval(values: np.ndarray) -> np.ndarray:
    """90 % prediction interval (5 %, mean, 95 %) for one more of `values` >= 0, (draws, ...).

    The interval of sqrt(values) is squared, because the variance of sqrt(values) depends little on
    the mean.
    """
    low, _, high = np.maximum(prediction_interval(np.sqrt(values)), 0.0) ** 2
    return np.array([low, values.mean(axis=0), high])


def prediction_interval(values: np.ndarray) -> np.ndarray:
    """90 % prediction interval (5 %, 50 %, 95 %) for one more of `values`, (draws, ...).

    The values are normally distributed.
    """
    n = len(values)
    mean = values.mean(axis=0)
    half = student.ppf(0.95, n - 1) * values.std(axis=0, ddof=1) * np.sqrt(1 + 1 / n)
    return np.array([mean - half, mean, mean + half])


def _share(late: np.ndarray, among: np.ndarray) -> float:
    return float(late[among].mean()) if among.any() else np.nan


def _unlike(share: float, predicted: np.ndarray, inside: float, minutes: int) -> str:
    """Why a service is not reproduced; "" if recorded and predicted latencies agree."""
    if np.isnan(share):
        return (
            "its latency at the quantile of the SLO was not recorded; "
            "record it, or change the quantile"
        )
    remedy = "measure where its requests wait (docs/adopt.md)"
    if inside < MIN_INSIDE:
        return (
            f"only {100 * inside:.0f} % of its {minutes} minutes had a latency "
            f"in the predicted interval; {remedy}"
        )
    if predicted[0] - SLACK <= share <= predicted[2] + SLACK:
        return ""
    low, _, high = 100 * predicted
    return (
        f"{100 * share:.1f} % of its {minutes} minutes were late, "
        f"{low:.1f} to {high:.1f} % are predicted; {remedy}"
    )


def _wrong_assumption(job: Job, calibration: Calibration) -> str:
    """Say which value in the jobs table the recorded latencies contradict; "" if none."""
    if calibration.kind != job.replica.kind:
        return f"its replicas are {calibration.kind}, not {job.replica.kind} as in the table"
    low, middle, high = 1 / calibration.capacity_rps[::-1]
    if abs(job.busy_s / middle - 1) <= LARGE or low <= job.busy_s <= high:
        return ""
    of_replica = f"{middle:.3g} s of a replica ({low:.3g} to {high:.3g})"
    return f"a request takes {of_replica}, not {job.busy_s:.3g} s as in the table"
