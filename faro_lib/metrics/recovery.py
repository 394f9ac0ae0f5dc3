"""Recovery from the loss of a worker under load: requests by outcome, and the time until the worker is back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from faro_lib.rayserve.load_generator import DROPPED, FAILED, SERVED

if TYPE_CHECKING:
    from faro_lib.rayserve.load_generator import Sent

STEP_S = 5  # seconds per row of the table


def recovery_frame(
    due_s: np.ndarray, sent: Sent, slo_s: np.ndarray, states: Iterable[Mapping[str, float]], deleted_s: float
) -> pd.DataFrame:
    """Requests by outcome and the state of the cluster, one row per STEP_S seconds.

    Parameters
    ----------
    due_s, slo_s : (requests,) send time since the load began, and the SLO of the request's job.
    states : second, workers (ready), capacity (cores, as the controller reports it), replicas (running).
    deleted_s : when the worker was deleted.
    """
    in_time = (sent.outcome == SERVED) & (sent.latency_s <= slo_s)
    requests = pd.DataFrame(
        {
            "second": (np.asarray(due_s) // STEP_S * STEP_S).astype(int),
            "in_time": in_time,
            "slo_missed": (sent.outcome == SERVED) & ~in_time,
            "dropped": sent.outcome == DROPPED,
            "failed": sent.outcome >= FAILED,
        }
    )
    cluster = pd.DataFrame(list(states), columns=["second", "workers", "capacity", "replicas"])
    cluster["second"] = (cluster["second"] // STEP_S * STEP_S).astype(int)
    table = requests.groupby("second").sum().reset_index()
    table = table.merge(cluster.groupby("second").last().reset_index(), on="second", how="left")
    return table.assign(deleted_s=deleted_s)


def recovery_s(table: pd.DataFrame) -> pd.Series:
    """Seconds from the loss until all workers are ready again, by trial; NaN if the load ended first."""
    times = {}
    for trial, part in table.groupby("trial"):
        all_workers, deleted_s = part["workers"].max(), part["deleted_s"].iloc[0]
        after = part[part["second"] >= deleted_s]
        lost = after[after["workers"] < all_workers]["second"]
        back = after[(after["second"] > lost.min()) & (after["workers"] == all_workers)]["second"]
        times[trial] = back.min() - deleted_s if len(lost) else np.nan
    return pd.Series(times, name="recovery_s", dtype=float)
