"""Errors of predicted tail latencies."""

import numpy as np
import pandas as pd

from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S

WORST = 10.0  # latencies are clipped to this multiple of the SLO


def prediction_errors(
    decisions: pd.DataFrame, minutes: pd.DataFrame, jobs: tuple[Job, ...]
) -> pd.DataFrame:
    """Compare each predicted tail latency of a run with the one measured in the next full minute.

    Decisions that change a job's replicas are left out, because the old replicas serve part of that
    minute. The error includes changes of the load after the decision.

    One row per job and minute: job, minute, predicted_tail_latency_s, tail_latency_s, slo_s, and
    log_error = |ln(predicted / measured)|. For log_error, both are capped at WORST x SLO.
    """
    decisions = decisions.sort_values(["job", "time_s"], kind="stable")
    moved = decisions.groupby("job", sort=False)["replicas_target"].diff().fillna(0) != 0
    steady = decisions[~moved & decisions["predicted_tail_latency_s"].notna()]
    steady = steady.assign(minute=np.ceil(steady["time_s"] / MINUTE_S).astype(np.int32))
    steady = steady.drop_duplicates(["job", "minute"], keep="last")  # the latest in a minute
    rows = steady[["job", "minute", "predicted_tail_latency_s"]].merge(
        minutes[["job", "minute", "tail_latency_s"]].dropna(), on=["job", "minute"]
    )
    slo_s = rows["job"].map({job.name: job.slo_s for job in jobs})
    predicted = (rows["predicted_tail_latency_s"] / slo_s).clip(upper=WORST)
    measured = (rows["tail_latency_s"] / slo_s).clip(upper=WORST)
    return rows.assign(slo_s=slo_s, log_error=np.abs(np.log(predicted / measured)))
