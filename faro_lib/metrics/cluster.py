"""What runs on a Kubernetes node leave behind: policies against each other, and a worker that is lost under load."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from faro_lib.live.load import FAILED, SERVED, SHED
from faro_lib.metrics.frames import decisions_frame, minutes_frame
from faro_lib.metrics.measures import summarize
from faro_lib.simulate import Run

if TYPE_CHECKING:
    from faro_lib.live.load import Sent

TABLES = ("summary", "minutes", "decisions", "recovery")
STEP_S = 5  # of the table of a recovery


@dataclass(frozen=True, slots=True)
class Recorded:
    """Tables under results/<workload>/live/kubernetes/; every row names its trial, and its policy where it has one.

    recovery : a row every STEP_S seconds: served in time, late, refused and failed, and what was there of the cluster.
    about : by trial, the versions of what ran.
    """

    summary: pd.DataFrame
    minutes: pd.DataFrame
    decisions: pd.DataFrame
    recovery: pd.DataFrame
    about: tuple[dict[str, Any], ...] = ()


def one_run(run: Run, policy: str, noted: Mapping[str, Any]) -> Recorded:
    """The tables of one run, of a trial yet unnumbered."""
    key = {"policy": policy, "replicas": run.capacity}
    return Recorded(
        pd.DataFrame([key | summarize(run) | dict(noted)]),
        minutes_frame(run).assign(**key),
        decisions_frame(run).assign(**key),
        pd.DataFrame(),
    )


def recovery_frame(
    due_s: np.ndarray, sent: Sent, slo_s: np.ndarray, states: Iterable[Mapping[str, float]], deleted_s: float
) -> pd.DataFrame:
    """What requests and cluster did around the loss of a worker.

    Parameters
    ----------
    due_s, slo_s : (requests,), since the load began; of the request's job.
    states : second, workers (ready), capacity (cores that the controller saw), replicas (serving), as looked at.
    deleted_s : when the worker was deleted.
    """
    in_time = (sent.outcome == SERVED) & (sent.latency_s <= slo_s)
    counts = pd.DataFrame(
        {
            "second": (np.asarray(due_s) // STEP_S * STEP_S).astype(int),
            "in_time": in_time,
            "late": (sent.outcome == SERVED) & ~in_time,
            "refused": sent.outcome == SHED,
            "failed": sent.outcome >= FAILED,
        }
    )
    table = counts.groupby("second").sum().reset_index()
    seen = pd.DataFrame(list(states), columns=["second", "workers", "capacity", "replicas"])
    seen["second"] = (seen["second"] // STEP_S * STEP_S).astype(int)
    table = table.merge(seen.groupby("second").last().reset_index(), on="second", how="left")
    return table.assign(deleted_s=deleted_s)


def write(folder: str | Path, runs: Sequence[Recorded], recovery: pd.DataFrame, about: Mapping[str, Any]) -> int:
    """Add a trial to the tables of a folder; its number, from 0."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trial = sum(1 for _ in folder.glob("trial-*.json"))
    parts: dict[str, list[pd.DataFrame]] = {name: [getattr(run, name) for run in runs] for name in TABLES[:3]}
    parts["recovery"] = [recovery]
    for name, frames in parts.items():
        path = folder / f"{name}.csv"
        before = [pd.read_csv(path)] if path.exists() and trial else []
        whole = pd.concat([*before, *(frame.assign(trial=trial) for frame in frames)], ignore_index=True)
        whole.to_csv(path, index=False, float_format="%.6g")
    (folder / f"trial-{trial}.json").write_text(json.dumps(dict(about), indent=1) + "\n")  # last: the trial counts
    return trial


def read(folder: str | Path) -> Recorded:
    folder = Path(folder)
    if not (folder / "summary.csv").exists():
        raise FileNotFoundError(f"{folder}/summary.csv: no such file; recorded runs on Kubernetes have one")
    about = tuple(json.loads(path.read_text()) for path in sorted(folder.glob("trial-*.json")))
    return Recorded(**{name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}, about=about)


def recovery_s(table: pd.DataFrame) -> pd.Series:
    """By trial: seconds from the loss of the worker until as many as before were ready; NaN if the load ended before."""
    times = {}
    for trial, part in table.groupby("trial"):
        after = part[part["second"] >= part["deleted_s"].iloc[0]]
        lost = after[after["workers"] < part["workers"].max()]["second"]
        back = after[(after["second"] > lost.min()) & (after["workers"] == part["workers"].max())]["second"]
        times[trial] = back.min() - part["deleted_s"].iloc[0] if len(lost) else np.nan
    return pd.Series(times, name="recovery_s", dtype=float)
