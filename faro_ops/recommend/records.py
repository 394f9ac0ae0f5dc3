"""What autoscalers did, minute by minute: requests, serving replicas and latencies, from a table, a journal or Prometheus."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.workload import Job, arrays_of
from faro_lib.workload.readers import read_counts, read_jobs
from faro_lib.workload.timed import timed_counts
from faro_ops.controller.journal import arrivals, with_same_jobs
from faro_ops.prometheus import read_prometheus
from faro_ops.recommend.load_history import History, history_of, local_minute, rows_of

LATENCY_COLUMN = re.compile(
    r"latency_(?:(mean)|p(\d+(?:\.\d+)?))_s"
)  # such as latency_mean_s, latency_p99_s


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Replicas and latencies recorded in each minute of the last day of `history`.

    Attributes
    ----------
    replicas : replicas that served at the end of each minute, (jobs, minutes); NaN = unknown.
    levels : quantile in each column of `latency_s` for each job, such as 0.99, (columns, jobs); NaN = the mean.
    latency_s : quantiles or means of latencies, (columns, jobs, minutes); NaN = unknown, inf = request dropped.
    """

    history: History
    replicas: np.ndarray
    levels: np.ndarray
    latency_s: np.ndarray

    @property
    def jobs(self) -> tuple[Job, ...]:
        return self.history.jobs

    @property
    def tail_s(self) -> np.ndarray:
        """The latency at each job's own quantile, (jobs, minutes); NaN = not recorded."""
        own = np.isclose(self.levels, arrays_of(self.jobs).quantile)[:, :, None]
        return np.where(own.any(axis=0), np.where(own, self.latency_s, 0.0).sum(axis=0), np.nan)


def records_of(
    jobs: Sequence[Job],
    counts: np.ndarray,
    replicas: np.ndarray,
    levels: np.ndarray,
    latency_s: np.ndarray,
    end_minute: int | None = None,
) -> Records:
    """Make `Records` from arrays over one or more days, NaN = missing. Days before the last keep only their counts.

    `levels` is (latency columns, jobs), or (latency columns, 1) if a column has the same quantile for all jobs.
    """
    history = history_of(jobs, counts, end_minute=end_minute)
    last = history.today.shape[1]
    return Records(
        history,
        replicas[:, -last:],
        np.broadcast_to(levels, latency_s.shape[:2]),
        latency_s[..., -last:],
    )


def records_from_csv(path: str, jobs: str) -> Records:
    """The records in a table with the columns job, requests, replicas, `time` or `minute`, and latency columns.

    Latency columns are latency_mean_s, latency_p99_s, ... Empty cells are unknown. Invalid cells raise ValueError.
    """
    table, names = read_counts(path, of_table := read_jobs(jobs))
    latencies = [name for name in table if LATENCY_COLUMN.fullmatch(str(name))]
    if "replicas" not in table or not latencies:
        lacking = (
            "replicas"
            if "replicas" not in table
            else "latency_p99_s (or another quantile, or latency_mean_s)"
        )
        raise ValueError(
            f"{path}: column {lacking} is missing; an audit needs replicas and latencies of each minute"
        )
    if table["day"].any():
        raise ValueError(
            f"{path}: an audit takes a column time, or minutes of one day, but no column day"
        )
    for name in ("replicas", *latencies):
        values = pd.to_numeric(table[name].replace("", np.nan), errors="coerce")
        bad = (table[name].ne("") & values.isna()) | (values < 0) | np.isinf(values)
        bad |= (values % 1 > 0) if name == "replicas" else values == 0
        for row in np.flatnonzero(bad)[:1]:
            accepted = "a whole number >= 0" if name == "replicas" else "a number of seconds > 0"
            raise ValueError(
                f"{path}, line {row + 2}: {name}={table[name].iloc[row]} is not {accepted}"
            )
        table[name] = values
    first, counts = timed_counts(table, names, path)
    replicas, *latency_s = (
        timed_counts(table, names, path, name)[1] for name in ("replicas", *latencies)
    )
    levels = np.array(
        [[float(LATENCY_COLUMN.sub(r"\2", name) or "nan") / 100] for name in latencies]
    )
    end_minute = first + counts.shape[1] if "time" in table else None
    return records_of(of_table, counts, replicas, levels, np.array(latency_s), end_minute)


def records_from_prometheus(
    url: str,
    query: str,
    replicas: str,
    latencies: Mapping[float, str],
    jobs: str,
    *,
    hours: int,
    label: str | None = None,
    token_path: str | None = None,
) -> Records:
    """The records of the last `hours`, by range queries; `latencies` maps a quantile (NaN = the mean) to its query."""
    table, end_s = read_jobs(jobs), time.time()
    options: dict[str, Any] = dict(
        minutes=hours * 60, label=label, end_s=end_s, token_path=token_path
    )
    counts = rows_of(table, *read_prometheus(url, query, **options))
    queries = (replicas, *latencies.values())
    others = [
        rows_of(table, *read_prometheus(url, one, counts=False, **options)) for one in queries
    ]
    levels = np.array([*latencies])[:, None]
    return records_of(table, counts, others[0], levels, np.array(others[1:]), local_minute(end_s))


def records_from_journal(path: str, jobs: str | None = None) -> Records:
    """Replicas, mean and tail latencies in a journal of `faro run`, for the jobs in its last header.

    `jobs` is the path of a jobs table, which replaces the jobs and SLOs in the journal.
    """
    header, ticks = with_same_jobs(path)
    if not ticks:
        raise ValueError(f"{path}: no decision has been made yet")
    table = read_jobs(jobs) if jobs else header.jobs
    if [job.name for job in table] != [job.name for job in header.jobs]:
        raise ValueError(
            f"{jobs}: its jobs are not those of the journal, {', '.join(job.name for job in header.jobs)}"
        )
    counts = arrivals(header, ticks)
    observed = np.full((3, *counts.shape), np.nan)
    first = max(tick.step.observation.minute for tick in ticks) - counts.shape[1]
    for observation in (
        tick.step.observation for tick in reversed(ticks)
    ):  # reversed, to keep a minute's first tick
        if (minute := observation.minute - 1 - first) >= 0:  # the minute that has just ended
            observed[:, :, minute] = (
                observation.running,
                observation.mean_latency_s,
                observation.tail_latency_s,
            )
    observed[1:][observed[1:] <= 0] = np.nan
    levels = np.array([np.full(len(table), np.nan), arrays_of(header.jobs).quantile])
    return records_of(table, counts, observed[0], levels, observed[1:])
