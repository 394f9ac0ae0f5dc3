"""Convert runs to tables, and write and read the tables of an experiment."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.errors import RENAMED
from faro_lib.metrics.measures import minute_effective_utility, minute_utility, summarize
from faro_lib.policies.protocol import HOLD, START
from faro_lib.simulate import Run
from faro_lib.simulate.run import EXPLANATIONS
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S

SHORT = ("summary", "limit", "recovery")  # stored as CSV; all other tables as Parquet
SIX_DIGITS = "%.6g"


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of an experiment. An empty table has no file.

    Attributes
    ----------
    summary : measures, one row per run.
    minutes, running : measures and running replicas, one row per run, job and minute.
    decisions : one row per run, job and tick with a change, a reason or a prediction.
    limit : lost utility of the clairvoyant policy (`metrics.limit`), one row per capacity and trial.
    clairvoyant : its replicas and utility, one row per capacity, trial, job and minute.
    recovery : outcomes of requests, and replicas, every few seconds around the deletion of a worker
        (`notebooks/live/recovery.py`).
    about : software versions and properties of the machine, one mapping per trial.
    """

    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    minutes: pd.DataFrame = field(default_factory=pd.DataFrame)
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    running: pd.DataFrame = field(default_factory=pd.DataFrame)
    limit: pd.DataFrame = field(default_factory=pd.DataFrame)
    clairvoyant: pd.DataFrame = field(default_factory=pd.DataFrame)
    recovery: pd.DataFrame = field(default_factory=pd.DataFrame)
    about: tuple[dict[str, Any], ...] = ()

    def frames(self) -> dict[str, pd.DataFrame]:
        """The tables that are not empty, by name."""
        frames = {name: getattr(self, name) for name in NAMES}
        return {name: frame for name, frame in frames.items() if not frame.empty}


NAMES = tuple(field.name for field in fields(Tables) if field.name != "about")


def tables_of(run: Run, key: Mapping[str, Any], published: bool = False, **notes: Any) -> Tables:
    """The tables summary, minutes and decisions of one run.

    `key` has the columns that identify the run, such as policy and trial; `notes` are additional columns of the summary.
    """
    summary = pd.DataFrame([{**key, **summarize(run, published), **notes}])
    return Tables(summary, with_key(minutes_frame(run), key), with_key(decisions_frame(run), key))


def with_key(frame: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    """The frame with one constant column per entry of `key` in front."""
    return frame.assign(**key)[[*key, *frame.columns]]


def joined(parts: Iterable[Tables]) -> Tables:
    """One `Tables` in which the tables of all parts are concatenated by name."""
    parts = list(parts)
    frames = {name: [part.frames()[name] for part in parts if name in part.frames()] for name in NAMES}
    joint = {name: pd.concat(rows, ignore_index=True) for name, rows in frames.items() if rows}
    return Tables(**joint, about=tuple(about for part in parts for about in part.about))


def read_tables(folder: str | Path, writer: str = "the pipeline") -> Tables:
    """Read all tables in a folder; `writer` is the command that writes them, for the error message.

    Raises FileNotFoundError if the folder has no summary.csv, ValueError if a column of the summary was renamed.
    """
    folder = Path(folder)
    if not (folder / "summary.csv").exists():
        raise FileNotFoundError(f"{folder}/summary.csv: no such file; {writer} writes it")
    frames = {}
    for name in NAMES:
        if (path := folder / f"{name}.csv").exists():
            frames[name] = pd.read_csv(path)
        elif (path := folder / f"{name}.parquet").exists():
            frames[name] = pd.read_parquet(path)
    for column in set(frames["summary"]) & set(RENAMED):
        raise ValueError(
            f"{folder}/summary.csv: column {column!r} is now called {RENAMED[column]!r}; run the stage again"
        )
    about = tuple(json.loads(path.read_text()) for path in sorted(folder.glob("trial-*.json")))
    return Tables(**frames, about=about)


def write_tables(tables: Tables, folder: str | Path, *, as_text: bool = False) -> None:
    """Write all tables into a folder; `as_text` writes CSV with six digits only, which suits git."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.frames().items():
        if as_text or name in SHORT:
            frame.to_csv(folder / f"{name}.csv", index=False, float_format=SIX_DIGITS if as_text else None)
        else:
            frame.to_parquet(folder / f"{name}.parquet", index=False)
    for trial, about in enumerate(tables.about):
        (folder / f"trial-{trial}.json").write_text(json.dumps(about, indent=1) + "\n")


def gather(folders: Iterable[str | Path], folder: str | Path) -> None:
    """Read the tables in `folders`, concatenate them and write them into `folder`."""
    write_tables(joined(read_tables(part) for part in folders), folder)


def minutes_frame(run: Run) -> pd.DataFrame:
    """Requests, drops, tail latency and utilities of a run, one row per job and minute."""
    return by_minute(
        run.workload.jobs,
        requests=run.requests,
        dropped=run.dropped,
        slo_missed=run.slo_missed,
        tail_latency_s=run.tail_latency_s,
        utility=minute_utility(run),
        effective_utility=minute_effective_utility(run),
    )


def by_minute(jobs: tuple[Job, ...], **columns: np.ndarray) -> pd.DataFrame:
    """A table with one row per job and minute, and one column per array (jobs, minutes)."""
    minutes = next(iter(columns.values())).shape[1]
    index = {
        "job": np.repeat([job.name for job in jobs], minutes),
        "minute": np.tile(np.arange(minutes, dtype=np.int32), len(jobs)),
    }
    return pd.DataFrame(index | {name: column.ravel() for name, column in columns.items()})


def decisions_frame(run: Run) -> pd.DataFrame:
    """Decisions of a run: one row per job and tick with a changed target or drop rate, a reason or a prediction.

    The columns EXPLANATIONS are what the plan was based on; NaN if the policy does not report them.
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
    reported = (reason != HOLD) | ~np.isnan(explained["predicted_tail_latency_s"])
    reported[1:] |= (target[1:] != target[:-1]) | (drop[1:] != drop[:-1])
    tick, job = np.nonzero(reported)
    columns = {"replicas_target": target, "drop_target": drop, "reason": reason} | explained
    rows = {name: values[tick, job] for name, values in columns.items()}
    return pd.DataFrame({"time_s": time_s[tick], "job": names[job]} | rows)


def running_by_minute(run: Run) -> np.ndarray:
    """Running replicas at the last observation in each minute, int (jobs, minutes)."""
    time_s = np.concatenate(([0.0], run.decisions.time_s))
    running = np.vstack([run.initial, *run.decisions.running])
    end_s = MINUTE_S * (1 + np.arange(run.workload.minutes))
    return running[np.searchsorted(time_s, end_s, side="right") - 1].T
