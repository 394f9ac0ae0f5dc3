"""A run as tables: the rows that the pipeline's files hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from faro_lib.metrics.measures import minute_effective_utility, minute_utility
from faro_lib.simulate import Run
from faro_lib.workload.jobs import MINUTE_S


def minutes_frame(run: Run) -> pd.DataFrame:
    """One row a job and minute: the columns of simulate/minutes.parquet that belong to one run."""
    jobs, bins = run.requests.shape
    return pd.DataFrame(
        {
            "job": np.repeat([job.name for job in run.workload.jobs], bins),
            "minute": np.tile(np.arange(bins, dtype=np.int32), jobs),
            "requests": run.requests.ravel(),
            "dropped": run.refused.ravel(),
            "late": run.late.ravel(),
            "p99_s": run.p99_s.ravel(),
            "utility": minute_utility(run).ravel(),
            "effective_utility": minute_effective_utility(run).ravel(),
        }
    )


def decisions_frame(run: Run) -> pd.DataFrame:
    """One row a job and turn in which its target or drop rate changed or a reason was given: simulate/decisions.parquet."""
    names = np.array([job.name for job in run.workload.jobs])
    if not run.decisions.time_s:
        return pd.DataFrame(
            {"time_s": 0.0, "job": names, "replicas_target": run.initial, "drop_target": 0.0, "reason": "start"}
        )
    time_s = np.concatenate(([0.0], run.decisions.time_s))
    target = np.vstack([run.initial, *run.decisions.target])
    drop = np.vstack([np.zeros(len(names)), *run.decisions.drop])
    reason = np.vstack([np.full(len(names), "start"), *(np.array(turn) for turn in run.decisions.reason)])
    told = reason != "hold"
    told[1:] |= (target[1:] != target[:-1]) | (drop[1:] != drop[:-1])
    turn, job = np.nonzero(told)
    return pd.DataFrame(
        {
            "time_s": time_s[turn],
            "job": names[job],
            "replicas_target": target[turn, job],
            "drop_target": drop[turn, job],
            "reason": reason[turn, job],
        }
    )


def running_by_minute(run: Run) -> np.ndarray:
    """Replicas that serve, as last seen in each minute: (jobs, minutes)."""
    minutes = run.workload.minutes
    if not run.decisions.time_s:
        return np.repeat(run.initial[:, None], minutes, axis=1)
    time_s = np.concatenate(([0.0], run.decisions.time_s))
    running = np.vstack([run.initial, *run.decisions.running])
    seen = np.searchsorted(time_s, MINUTE_S * (1 + np.arange(minutes)), side="right") - 1
    return running[seen].T
