"""What autoscalers did, minute by minute: requests, serving replicas and latencies.

They are read from a table, a journal or Prometheus.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from faro_lib.workload import Job, arrays_of
from faro_lib.workload.readers import read_counts
from faro_lib.workload.request_log import Report, RequestLog, read_request_log
from faro_lib.workload.timed import timed_counts
from faro_ops.advise.sources.history import (
    History,
    history_of,
    history_of_log,
)
from faro_ops.jobs_table import read_unshared
from faro_ops.journal.reading import arrivals, with_same_jobs
from faro_ops.prometheus import read_prometheus
from faro_ops.recorded_days import local_minute, rows_of

# Such as latency_mean_s, latency_p99_s.
LATENCY_COLUMN = re.compile(r"latency_(?:(mean)|p(\d+(?:\.\d+)?))_s")


@dataclass(frozen=True, slots=True, eq=False)
class ServingHistory:
    """Replicas and latencies recorded in each minute of the last day of `history`.

    Attributes
    ----------
    replicas : replicas that served at the end of each minute, (jobs, minutes); NaN = unknown.
    levels : quantile in each column of `latency_s` for each job, such as 0.99, (columns, jobs); NaN
        = the mean.
    latency_s : quantiles or means of latencies, (columns, jobs, minutes); NaN = unknown, inf =
        request dropped.
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


def serving_of(
    jobs: Sequence[Job],
    counts: np.ndarray,
    replicas: np.ndarray,
    levels: np.ndarray,
    latency_s: np.ndarray,
    end_minute: int | None = None,
) -> ServingHistory:
    """Make `ServingHistory` from arrays over one or more days, NaN = missing.

    Days before the last keep only their counts.

    `levels` is (latency columns, jobs), or (latency columns, 1) if a column has the same quantile
    for all jobs.
    """
    return served_in(history_of(jobs, counts, end_minute=end_minute), replicas, levels, latency_s)


def served_in(
    history: History, replicas: np.ndarray, levels: np.ndarray, latency_s: np.ndarray
) -> ServingHistory:
    """What served the last day of `history`; the arrays are those of `serving_of`."""
    last = history.today.shape[1]
    return ServingHistory(
        history,
        replicas[:, -last:],
        np.broadcast_to(levels, latency_s.shape[:2]),
        latency_s[..., -last:],
    )


def serving_from_csv(path: str, jobs: str) -> ServingHistory:
    """The serving history in a table of minutes.

    Its columns are job, requests, replicas, `time` or `minute`, and latencies: latency_mean_s,
    latency_p99_s, ... Empty cells are unknown. Invalid cells raise ValueError.
    """
    jobs_of_table = read_unshared(jobs)
    table, names = read_counts(path, jobs_of_table)
    latencies = [name for name in table if LATENCY_COLUMN.fullmatch(str(name))]
    lacking = None
    if "replicas" not in table:
        lacking = "replicas"
    elif not latencies:
        lacking = "latency_p99_s (or another quantile, or latency_mean_s)"
    if lacking:
        raise ValueError(
            f"{path}: column {lacking} is missing; "
            "an audit needs replicas and latencies of each minute"
        )
    if table["day"].any():
        raise ValueError(
            f"{path}: an audit takes a column time, or minutes of one day, but no column day"
        )
    for name in ("replicas", *latencies):
        table[name] = _numbers(table[name], path)
    first, counts = timed_counts(table, names, path)
    _, replicas = timed_counts(table, names, path, "replicas")
    latency_s = [timed_counts(table, names, path, name)[1] for name in latencies]
    levels = [[_level_of(name)] for name in latencies]
    end_minute = first + counts.shape[1] if "time" in table else None
    return serving_of(
        jobs_of_table, counts, replicas, np.array(levels), np.array(latency_s), end_minute
    )


def serving_from_log(
    path: str,
    replicas_path: str | None,
    jobs: str,
    report: Report = lambda line: None,
    *,
    bursts: bool = True,
) -> ServingHistory:
    """The serving history in a request log with the column latency_s.

    A minute has the mean of the latencies of its requests, the median, and the quantile of the
    job's SLO. Jobs that generate tokens have the lengths of the log (`with_lengths`). If `bursts`,
    the last day has its exact times, and the jobs have the dispersion of the log. `replicas_path`
    is a file of the same formats with a row for each change of a job's replicas, or for each look
    at them: time, job, replicas.
    """
    if replicas_path is None:
        raise ValueError(f"{path}: a request log has no replicas; give --replicas-file FILE")
    table = read_unshared(jobs)
    names = [job.name for job in table]
    log = read_request_log(path, names, report, keep="latency_s", lengths=True)
    history = history_of_log(log, table, report=report, bursts=bursts)
    counts = log.per_minute
    quantiles = arrays_of(table).quantile
    levels = np.array([np.full(len(table), np.nan), np.full(len(table), 0.5), quantiles])
    latency_s = np.full((len(levels), *counts.shape), np.nan)
    assert log.kept is not None
    for job, of_job in log.kept[log.kept["value"] > 0].groupby("job"):
        by_minute = of_job.groupby("minute")["value"]
        means = by_minute.mean()
        minutes = means.index.to_numpy()
        latency_s[0, job, minutes] = means
        for n, level in enumerate((0.5, quantiles[job]), 1):
            latency_s[n, job, minutes] = by_minute.quantile(level)
    replicas = _replicas_of_minutes(replicas_path, names, log, report)
    return served_in(history, replicas, levels, latency_s)


def _replicas_of_minutes(
    path: str, names: Sequence[str], log: RequestLog, report: Report
) -> np.ndarray:
    """Replicas at the end of each minute of `log`, (jobs, minutes); NaN = not known yet."""
    rows = read_request_log(path, names, report, keep="replicas")
    assert rows.kept is not None
    part = rows.kept["value"] % 1 != 0
    if part.any():
        row = int(part.to_numpy().argmax())
        value = rows.kept["value"].iloc[row]
        raise ValueError(f"{path}, row {row + 1}: replicas={value:g} is not a whole number >= 0")
    known = rows.kept.groupby(["minute", "job"])["value"].last().unstack()
    first = log.first_minute - rows.first_minute
    minutes = range(first, first + log.per_minute.shape[1])
    every = known.reindex(range(min(0, first), minutes.stop)).ffill()
    return every.reindex(minutes).reindex(columns=range(len(names))).to_numpy(float).T


def _numbers(column: pd.Series, path: str) -> pd.Series:
    """The numbers in a column of replicas or latencies, NaN = unknown; bad cells: ValueError."""
    values = pd.to_numeric(column.replace("", np.nan), errors="coerce")
    bad = (column.ne("") & values.isna()) | (values < 0) | np.isinf(values)
    if column.name == "replicas":
        bad |= values % 1 > 0
        accepted = "a whole number >= 0"
    else:
        bad |= values == 0
        accepted = "a number of seconds > 0"
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{path}, line {row + 2}: {column.name}={column.iloc[row]} is not {accepted}"
        )
    return values


def _level_of(name: str) -> float:
    """The quantile in the name of a latency column, such as 0.99 for latency_p99_s; NaN = mean."""
    return float(LATENCY_COLUMN.sub(r"\2", name) or "nan") / 100


def serving_from_prometheus(
    url: str,
    query: str,
    replicas: str,
    latencies: Mapping[float, str],
    jobs: str,
    *,
    hours: int,
    label: str | None = None,
    token_path: str | None = None,
) -> ServingHistory:
    """The serving history of the last `hours`, by range queries.

    `latencies` maps a quantile (NaN = the mean) to its query.
    """
    table = read_unshared(jobs)
    end_s = time.time()

    def read(promql: str, counts: bool = False) -> np.ndarray:
        """The values of a query, (jobs, minutes)."""
        names, values = read_prometheus(
            url,
            promql,
            minutes=hours * 60,
            label=label,
            end_s=end_s,
            token_path=token_path,
            counts=counts,
        )
        return rows_of(table, names, values)

    return serving_of(
        table,
        counts=read(query, counts=True),
        replicas=read(replicas),
        levels=np.array([*latencies])[:, None],
        latency_s=np.array([read(of_level) for of_level in latencies.values()]),
        end_minute=local_minute(end_s),
    )


def serving_from_journal(path: str, jobs: str | None = None) -> ServingHistory:
    """Replicas, mean and tail latencies in a journal of `faro run`.

    The jobs are those of its last header. `jobs` is the path of a jobs table, which replaces the
    jobs and SLOs in the journal.
    """
    header, recorded = with_same_jobs(path)
    ticks = list(recorded)
    if not ticks:
        raise ValueError(f"{path}: no decision has been made yet")
    table = read_unshared(jobs) if jobs else header.jobs
    if [job.name for job in table] != [job.name for job in header.jobs]:
        names = ", ".join(job.name for job in header.jobs)
        raise ValueError(f"{jobs}: its jobs are not those of the journal, {names}")
    counts = arrivals(header, ticks)  # (jobs, minutes)
    replicas = np.full(counts.shape, np.nan)
    latency_s = np.full((2, *counts.shape), np.nan)  # mean and tail
    first = max(tick.step.observation.minute for tick in ticks) - counts.shape[1]
    for tick in reversed(ticks):  # reversed, to keep a minute's first tick
        observation = tick.step.observation
        minute = observation.minute - 1 - first  # the minute that has just ended
        if minute >= 0:
            replicas[:, minute] = observation.running
            latency_s[:, :, minute] = observation.mean_latency_s, observation.tail_latency_s
    latency_s[latency_s <= 0] = np.nan
    levels = np.array([np.full(len(table), np.nan), arrays_of(header.jobs).quantile])
    return serving_of(table, counts, replicas, levels, latency_s)
