"""How well predicted percentiles of latency came true, and how fast a model that learns gets better."""

from __future__ import annotations

import numpy as np
import pandas as pd

from faro_lib.metrics.frames import running_by_minute
from faro_lib.policies.cilantro import WORST, LearnedLatency
from faro_lib.simulate import Run
from faro_lib.workload.jobs import MINUTE_S, Job, jobs_array


def prediction_errors(decisions: pd.DataFrame, minutes: pd.DataFrame, jobs: tuple[Job, ...]) -> pd.DataFrame:
    """Predicted against measured percentiles, for the first whole minute after each decision that predicts.

    Decisions that change a job's replicas are left out: the minute after them is served by another count. The error
    includes what the load did meanwhile, as a policy without a forecast must bear it.

    Parameters
    ----------
    decisions, minutes : of one run, `decisions_frame` and `minutes_frame`.

    Returns
    -------
    one row a job and minute: job, minute, predicted_tail_latency_s, tail_latency_s, slo_s, log_error = |ln(predicted / measured)|,
    both cut at 10 SLOs, and utility_error = |utility predicted - measured| (relaxed).
    """
    slo_s = {job.name: job.slo_s for job in jobs}
    decisions = decisions.sort_values(["job", "time_s"], kind="stable")
    moved = decisions.groupby("job", sort=False)["replicas_target"].diff().fillna(0) != 0
    steady = decisions[~moved & decisions["predicted_tail_latency_s"].notna()]
    steady = steady.assign(minute=np.ceil(steady["time_s"] / MINUTE_S).astype(np.int32))
    steady = steady.drop_duplicates(["job", "minute"], keep="last")  # the latest word on a minute
    told = steady[["job", "minute", "predicted_tail_latency_s"]].merge(
        minutes[["job", "minute", "tail_latency_s"]], on=["job", "minute"]
    )
    told = told[told["tail_latency_s"].notna()]
    slo = told["job"].map(slo_s)
    predicted, measured = (
        (told[column] / slo).clip(upper=WORST) for column in ("predicted_tail_latency_s", "tail_latency_s")
    )
    return told.assign(
        slo_s=slo,
        log_error=np.abs(np.log(predicted / measured)),
        utility_error=np.abs(np.minimum(1, 1 / predicted) - np.minimum(1, 1 / measured)),
    ).reset_index(drop=True)


def learning_curve(run: Run, scored_on: Run | None = None, after_min=(0, 5, 15, 30, 60, 120, 240, 360)) -> pd.DataFrame:
    """How wrong the learned latency model was after so many minutes of a run, always judged on the same job-minutes.

    Errors over time as `prediction_errors` has them follow the load, as peaks are harder to predict; these do not.

    Parameters
    ----------
    scored_on : the run whose job-minutes judge, another trial, say; `run` itself if None.

    Returns
    -------
    minute, log_error (mean of |ln(believed / measured)|, cut at 10 SLOs), observations learned so far.
    """
    of_job, minute, *learned = _steady_minutes(run)
    judge_of_job, _, *judge = _steady_minutes(scored_on or run)
    kinds = np.array([job.model for job in run.workload.jobs])
    slo_s = jobs_array(run.workload.jobs, "slo_s")
    model, rows, done = LearnedLatency.prior(kinds), [], 0
    for until in sorted(min(m, run.workload.minutes) for m in after_min):
        upto = int(np.searchsorted(minute, until))
        part = slice(done, upto)
        jobs = of_job[part]
        model = model.learn(list(kinds[jobs]), slo_s[jobs], *(values[part] for values in learned))
        done = upto
        errors = []
        for job in np.unique(judge_of_job):
            rate_rps, replicas, tail_latency_s = (values[judge_of_job == job] for values in judge)
            believed_s = model.latency_s(kinds[job], slo_s[job], rate_rps, replicas)
            worst_s = WORST * slo_s[job]
            errors.append(np.abs(np.log(np.minimum(believed_s, worst_s) / np.minimum(tail_latency_s, worst_s))))
        rows.append((until, float(np.concatenate(errors).mean()), done))
    return pd.DataFrame(rows, columns=["minute", "log_error", "observations"]).drop_duplicates("minute")


def _steady_minutes(run: Run):
    """Job-minutes with requests and as many replicas as the minute before: job, minute, rate_rps, replicas, tail_latency_s."""
    running = running_by_minute(run)
    requests, tail_latency_s = run.requests[:, :-1], run.tail_latency_s[:, :-1]
    steady = (running > 0) & (requests > 0)
    steady &= np.diff(running, axis=1, prepend=run.initial[:, None]) == 0
    minute, job = np.nonzero(steady.T)
    return job, minute, requests[job, minute] / MINUTE_S, running[job, minute], tail_latency_s[job, minute]
