"""A run as tables: the rows that the pipeline's files hold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from faro_lib.metrics.limit import Clairvoyant
from faro_lib.metrics.measures import minute_effective_utility, minute_utility
from faro_lib.policies.protocol import HOLD, START
from faro_lib.simulate import Run
from faro_lib.simulate.run import EXPLANATIONS
from faro_lib.workload.jobs import MINUTE_S


def minutes_frame(run: Run) -> pd.DataFrame:
    """One row a job and minute: the columns of simulate/minutes.parquet that belong to one run."""
    jobs, bins = run.requests.shape
    return pd.DataFrame(
        {
            "job": np.repeat([job.name for job in run.workload.jobs], bins),
            "minute": np.tile(np.arange(bins, dtype=np.int32), jobs),
            "requests": run.requests.ravel(),
            "dropped": run.dropped.ravel(),
            "slo_missed": run.slo_missed.ravel(),
            "tail_latency_s": run.tail_latency_s.ravel(),
            "utility": minute_utility(run).ravel(),
            "effective_utility": minute_effective_utility(run).ravel(),
        }
    )


def clairvoyant_frame(found: Clairvoyant) -> pd.DataFrame:
    """One row a job and minute: the columns of simulate/clairvoyant.parquet that belong to one trial."""
    jobs, bins = found.replicas.shape
    return pd.DataFrame(
        {
            "job": np.repeat([job.name for job in found.jobs], bins),
            "minute": np.tile(np.arange(bins, dtype=np.int32), jobs),
            "running": found.replicas.ravel(),
            "utility": found.utility.ravel(),
            "effective_utility": found.effective.ravel(),
        }
    )


def decisions_frame(run: Run) -> pd.DataFrame:
    """One row a job and tick in which its target or drop rate changed, a reason or a prediction was given.

    The columns of simulate/decisions.parquet that belong to one run: the decision, then what the plan rests on (NaN where
    the plan does not tell).
    """
    names = np.array([job.name for job in run.workload.jobs])
    decisions = run.decisions
    time_s = np.concatenate(([0.0], decisions.time_s))
    target = np.vstack([run.initial, *decisions.target])
    drop = np.vstack([np.zeros(len(names)), *decisions.drop])
    reason = np.vstack([np.full(len(names), START), *(np.array(tick) for tick in decisions.reason)])
    unknown = np.full(len(names), np.nan)
    explained = {
        column: np.vstack([unknown, *(unknown if tick is None else tick for tick in getattr(decisions, column))])
        for column in EXPLANATIONS
    }
    told = (reason != HOLD) | ~np.isnan(explained["predicted_tail_latency_s"])
    told[1:] |= (target[1:] != target[:-1]) | (drop[1:] != drop[:-1])
    tick, job = np.nonzero(told)
    return pd.DataFrame(
        {
            "time_s": time_s[tick],
            "job": names[job],
            "replicas_target": target[tick, job],
            "drop_target": drop[tick, job],
            "reason": reason[tick, job],
        }
        | {column: values[tick, job] for column, values in explained.items()}
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
