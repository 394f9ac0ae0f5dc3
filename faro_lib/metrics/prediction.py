"""Errors of predicted tail latencies, and the learning curve of a latency model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from faro_lib.metrics.frames import running_by_minute
from faro_lib.policies.cilantro import WORST, LearnedLatency
from faro_lib.simulate import Run
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S


def prediction_errors(decisions: pd.DataFrame, minutes: pd.DataFrame, jobs: tuple[Job, ...]) -> pd.DataFrame:
    """Predicted and measured tail latency of the first full minute after each prediction, from the tables of one run.

    Decisions that change a job's replicas are left out, because the old replicas serve part of the next minute. Part of
    an error is the change of the load since the decision.

    One row per job and minute: job, minute, predicted_tail_latency_s, tail_latency_s, slo_s, log_error =
    |ln(predicted / measured)| with both capped at WORST x SLO, and utility_error = |difference of relaxed utilities|.
    """
    decisions = decisions.sort_values(["job", "time_s"], kind="stable")
    moved = decisions.groupby("job", sort=False)["replicas_target"].diff().fillna(0) != 0
    steady = decisions[~moved & decisions["predicted_tail_latency_s"].notna()]
    steady = steady.assign(minute=np.ceil(steady["time_s"] / MINUTE_S).astype(np.int32))
    steady = steady.drop_duplicates(["job", "minute"], keep="last")  # the latest prediction of a minute
    rows = steady[["job", "minute", "predicted_tail_latency_s"]].merge(
        minutes[["job", "minute", "tail_latency_s"]].dropna(), on=["job", "minute"]
    )
    slo_s = rows["job"].map({job.name: job.slo_s for job in jobs})
    predicted, measured = (
        (rows[column] / slo_s).clip(upper=WORST) for column in ("predicted_tail_latency_s", "tail_latency_s")
    )
    return rows.assign(
        slo_s=slo_s,
        log_error=np.abs(np.log(predicted / measured)),
        utility_error=np.abs(np.minimum(1, 1 / predicted) - np.minimum(1, 1 / measured)),
    )


def learning_curve(
    run: Run, scored_on: Run | None = None, after_minutes: Sequence[int] = (0, 5, 15, 30, 60, 120, 240, 360)
) -> pd.DataFrame:
    """Error of the latency model that `policies.cilantro` learns from `run`, after N minutes of learning.

    Every row is scored on all minutes of `scored_on`, for example another trial, or of `run`, so rows are comparable.

    Columns minute; log_error, the mean of that in `prediction_errors`; observations, how many have been learned from.
    """
    of_job, minute, *learned = _steady_minutes(run)
    scored_job, _, *scored = _steady_minutes(scored_on or run)
    kinds, slo_s = np.array([job.model for job in run.workload.jobs]), arrays_of(run.workload.jobs).slo_s
    model, rows, done = LearnedLatency.prior(kinds), [], 0
    for until in sorted(min(m, run.workload.minutes) for m in after_minutes):
        part = slice(done, int(np.searchsorted(minute, until)))
        model = model.learn(list(kinds[of_job[part]]), slo_s[of_job[part]], *(values[part] for values in learned))
        done = part.stop
        errors = []
        for job in np.unique(scored_job):
            rate_rps, replicas, measured_s = (values[scored_job == job] for values in scored)
            predicted_s = model.latency_s(kinds[job], slo_s[job], rate_rps, replicas)
            worst_s = WORST * slo_s[job]
            errors.append(np.abs(np.log(np.minimum(predicted_s, worst_s) / np.minimum(measured_s, worst_s))))
        rows.append((until, float(np.concatenate(errors).mean()), done))
    return pd.DataFrame(rows, columns=["minute", "log_error", "observations"]).drop_duplicates("minute")


def _steady_minutes(run: Run) -> tuple[np.ndarray, ...]:
    """(job, minute, rate_rps, replicas, tail_latency_s) of all minutes of a job with requests and an unchanged count."""
    running = running_by_minute(run)
    requests, tail_latency_s = run.requests[:, :-1], run.tail_latency_s[:, :-1]
    steady = (running > 0) & (requests > 0)
    steady &= np.diff(running, axis=1, prepend=run.initial[:, None]) == 0
    minute, job = np.nonzero(steady.T)
    return job, minute, requests[job, minute] / MINUTE_S, running[job, minute], tail_latency_s[job, minute]
