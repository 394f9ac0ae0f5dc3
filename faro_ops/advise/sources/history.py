"""Read requests per minute from a table, Prometheus or a journal of `faro run`.

Each source becomes a `History` by `history_of`. Forecasters learn from it, and it is simulated.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.forecast import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, fit, forecasters
from faro_lib.workload import Job, Traces
from faro_lib.workload.bursts import fit_dispersion
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S
from faro_lib.workload.log_lengths import lengths_of, with_lengths
from faro_lib.workload.log_traces import (
    BURSTY,
    at_random,
    tell_bursts,
    times_between,
    with_bursts,
)
from faro_lib.workload.readers import is_table, read_counts, traces_of_minutes
from faro_lib.workload.request_log import (
    TIME,
    WINDOW_S,
    WINDOWS_PER_MINUTE,
    Report,
    RequestLog,
    is_request_log,
    read_request_log,
)
from faro_lib.workload.tables import load_workload
from faro_lib.workload.timed import (
    by_the_clock,
    clock_shifts,
    minutes_of,
    timed_counts,
)
from faro_ops.jobs_table import read_unshared
from faro_ops.journal.reading import arrivals, with_same_jobs
from faro_ops.journal.ticks import Tick
from faro_ops.prometheus import read_prometheus
from faro_ops.recorded_days import interpolated, local_counts, local_minute, rows_of

UNFIT = {"oracle": "knows the future", "bayes": "needs a posterior, which the pipeline fits"}
At = str | int | None  # a minute of the last day: its number, HH:MM or ISO 8601
CLOCK_TIME = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")
# Minimum to fit a forecaster or to simulate a day.
MIN_HISTORY_MINUTES = CONTEXT_MINUTES + HORIZON_MINUTES + 1


@dataclass(frozen=True, slots=True)
class History:
    """Requests per minute of the last day and of earlier days.

    "Now" is a time on the last day, usually its end.

    Attributes
    ----------
    today : counts of the last day until now, (jobs, minutes), oldest first, NaN = missing.
    traces : `evaluation` is the full last day. `train` has the earlier days, or the last day if
        there are none.
    single_day : whether there is no earlier day, so that forecasters learn from the simulated day.
    end_minute : minutes since 1970, local time, at the end of the last day; None if the counts have
        no times.
    replicas : replica counts now, (jobs,), NaN = unknown; None if unknown for every job.
    """

    jobs: tuple[Job, ...]
    today: np.ndarray
    traces: Traces
    single_day: bool
    end_minute: int | None = None
    replicas: np.ndarray | None = None

    @property
    def days(self) -> int:
        """Number of recorded days, including the last one."""
        return 1 if self.single_day else self.traces.days + 1

    @property
    def day_minutes(self) -> int:
        """Minutes of the last day."""
        return self.traces.evaluation.shape[-1]

    @property
    def later_minutes(self) -> int:
        """Number of minutes from now to the end of the last day."""
        return self.day_minutes - self.today.shape[1]

    @property
    def missing(self) -> int:
        """Number of missing counts today, over all jobs and minutes."""
        return int(np.isnan(self.today).sum())

    @property
    def unobserved(self) -> tuple[str, ...]:
        """Names of the jobs without requests today and on earlier days."""
        idle = _idle(self.today, self.traces.train)
        return tuple(job.name for job, none in zip(self.jobs, idle) if none)

    @property
    def short(self) -> bool:
        """Whether the days have fewer minutes than a forecaster and a simulation need."""
        return self.traces.train.shape[-1] < MIN_HISTORY_MINUTES

    def at_random(self) -> History:
        """The history whose requests are assumed to arrive at random times of their minute."""
        jobs = at_random(self.jobs)
        return replace(self, jobs=jobs, traces=replace(self.traces, jobs=jobs, arrival_s=()))

    def clock(self, minute: int) -> str:
        """A minute of the last day as HH:MM, or as its number if the counts have no times."""
        if self.end_minute is None:
            return f"minute {minute}"
        first = self.end_minute - self.day_minutes
        hour, of_hour = divmod((first + minute) % DAY_MINUTES, 60)
        return f"{hour:02d}:{of_hour:02d}"

    def span(self, first: int, last: int) -> str:
        """Two minutes of the last day as text, such as "08:00 to 11:00" (see `clock`)."""
        return f"{self.clock(first)} to {self.clock(last)}"

    def moment(self, day: int, minute: int) -> str:
        """A minute of a day, 0 to `days` - 1, as text.

        It reads "2026-11-24T13:50" or, without times, "minute 830 of day 2 of 4".
        """
        if self.end_minute is None:
            return f"{self.clock(minute)} of day {day + 1} of {self.days}"
        minutes_ago = (self.days - day) * self.day_minutes - minute
        return str(np.datetime64(self.end_minute - minutes_ago, "m"))

    def forecaster(self, name: str | None = None) -> Forecaster:
        """Fit the forecaster `name` to `traces`.

        None means `auto`, which stays untrained if the history is `short`.
        """
        if name in UNFIT:
            accepted = ", ".join(one for one in forecasters() if one not in UNFIT)
            raise ValueError(f"forecaster={name!r} {UNFIT[name]}; accepted: {accepted}")
        if self.short and name is None:
            return fit("auto", replace(self.traces, train=self.traces.train[:0]))
        return fit(name or "auto", self.traces)


# --- from a source to a History ---------------------------------------------------------------


def history_from_csv(
    path: str,
    jobs: str | None = None,
    at: At = None,
    report: Report = lambda line: None,
    *,
    bursts: bool = True,
) -> History:
    """The history in a table of counts, a request log, or a built-in workload, named `path`.

    bursts : whether a log's exact times are simulated, and its bursts fitted.
    """
    table = read_unshared(jobs, simulated=True) if jobs else None
    if is_request_log(path):
        names = [job.name for job in table] if table else None
        log = read_request_log(path, names, report, keep=TIME if bursts else None, lengths=True)
        return history_of_log(log, table, at, report, bursts=bursts)
    if not is_table(path):
        traces = load_workload(path, jobs)
        return history_of(traces.jobs, traces.evaluation[0], earlier=traces.train, at=at)
    rows, names = read_counts(path, table)
    if "time" in rows:
        first, counts = timed_counts(rows, names, path)
        first, counts = by_the_clock(first, counts, clock_shifts(rows))
        end_minute = first + counts.shape[1]
        of_counts = table or [Job(name) for name in names]
        history = history_of(of_counts, counts, at=at, end_minute=end_minute)
    else:
        traces = traces_of_minutes(Path(path), rows, names, table)
        history = history_of(traces.jobs, traces.evaluation[0], earlier=traces.train, at=at)
    if "replicas" in rows:
        return replace(history, replicas=_replicas_now(rows, names, history.later_minutes))
    return history


def history_of_log(
    log: RequestLog,
    table: tuple[Job, ...] | None,
    at: At = None,
    report: Report = lambda line: None,
    *,
    bursts: bool = True,
) -> History:
    """The history in a request log, with its lengths of requests; `bursts` as in
    `history_from_csv`.
    """
    tell_bursts(log, report, bursts)
    jobs = with_lengths(table or tuple(map(Job, log.names)), lengths_of(log), report)
    counts = log.per_minute
    end_minute = log.first_minute + counts.shape[1]
    if not bursts:
        return history_of(jobs, counts, at=at, end_minute=end_minute)
    history = history_of(with_bursts(jobs, log), counts, at=at, end_minute=end_minute)
    return with_times(history, log)


def with_times(history: History, log: RequestLog) -> History:
    """The history, whose last day ends with the log, with the exact times of that day."""
    last = log.per_minute.shape[1]
    times = times_between(log, last - history.day_minutes, last)
    return replace(history, traces=replace(history.traces, arrival_s=times))


def _replicas_now(rows: pd.DataFrame, names: list[str], later_minutes: int) -> np.ndarray:
    """The last known replica counts (jobs,), NaN = unknown, without the last `later_minutes`."""
    rows = rows.assign(replicas=pd.to_numeric(rows["replicas"], errors="coerce"))
    rows = rows.sort_values(["day", "minute"])
    now = rows["minute"].max() - later_minutes
    later = (rows["day"] == rows["day"].max()) & (rows["minute"] > now)
    return rows[~later].groupby("job")["replicas"].last().reindex(names).to_numpy(float)


def history_from_prometheus(
    url: str,
    query: str,
    jobs: str | None,
    *,
    hours: int,
    label: str | None = None,
    token_path: str | None = None,
    burst_query: str | None = None,
) -> History:
    """The history of the last `hours`, by a range query to Prometheus.

    `burst_query` counts the requests of WINDOW_S, from which the jobs' dispersion in such windows
    is fitted; at most those of a day are read.

    `label` is the Prometheus label that names the job. If `jobs` is the path of a jobs table, only
    jobs in it are read.
    """
    end_s = time.time()
    names, counts = read_prometheus(
        url, query, minutes=hours * 60, label=label, end_s=end_s, token_path=token_path
    )
    if jobs is None:
        table = tuple(Job(name) for name in names)
    else:
        table = _any_of(jobs, names, "the series of the query")
    if burst_query is not None:
        of_windows, windows = read_prometheus(
            url,
            burst_query,
            minutes=min(hours * 60, DAY_MINUTES),
            label=label,
            end_s=end_s,
            token_path=token_path,
            counts=False,
            step_s=WINDOW_S,
        )
        table = with_window_bursts(table, rows_of(table, of_windows, windows))
    counts = local_counts(rows_of(table, names, counts), end_s)
    return history_of(table, counts, end_minute=local_minute(end_s))


def with_window_bursts(jobs: Sequence[Job], windows: np.ndarray) -> tuple[Job, ...]:
    """The jobs with the dispersion of counts in WINDOW_S, (jobs, windows), NaN = missing.

    Within a window, requests are assumed at random times. Otherwise as `with_bursts`.
    """
    found = []
    for job, counts in zip(jobs, windows):
        minutes = counts.reshape(-1, WINDOWS_PER_MINUTE)
        known = minutes[np.isfinite(minutes).all(axis=1)]
        index = fit_dispersion(known) if len(known) else 1.0
        if not job.bursty and index > BURSTY:
            job = replace(job, dispersion_10s=float(f"{index:.2g}"))
        found.append(job)
    return tuple(found)


def history_from_journal(path: str, jobs: str | None = None, at: At = None) -> History:
    """The history in a journal of `faro run`, for the jobs in its last header.

    Minutes that no observation covers are NaN. `jobs` is the path of a jobs table, which replaces
    the jobs and SLOs in the journal.
    """
    header, ticks = with_same_jobs(path)
    ran: list[tuple[int, np.ndarray]] = []  # (minute, replicas (jobs of the journal,)) of each tick

    def noted() -> Iterator[Tick]:
        for one in ticks:
            ran.append((one.step.observation.minute, one.step.observation.running))
            yield one

    names = tuple(job.name for job in header.jobs)
    table = header.jobs if jobs is None else _any_of(jobs, names, "the jobs of the journal")
    counts = rows_of(table, names, arrivals(header, noted()))
    if header.origin_s is not None:
        last = max(minute for minute, _ in ran)
        counts = local_counts(counts, header.origin_s + MINUTE_S * last)
    history = history_of(table, counts, at=at)
    now = ran[-1][0] - history.later_minutes
    until_now = [running for minute, running in ran if minute <= now] or [ran[-1][1]]
    running = until_now[-1].astype(float)  # (jobs of the journal,)
    return replace(history, replicas=rows_of(table, names, running[:, None])[:, 0])


def _any_of(path: str, names: Sequence[str], source: str) -> tuple[Job, ...]:
    """Read the jobs table at `path`; ValueError if no job is in `names`, those of `source`."""
    jobs = read_unshared(path, simulated=True)
    if not any(job.name in names for job in jobs):
        raise ValueError(f"{path}: job {jobs[0].name!r} is not among {source}: {', '.join(names)}")
    return jobs


def history_of(
    jobs: Sequence[Job], counts, *, earlier=None, at: At = None, end_minute: int | None = None
) -> History:
    """The `History` of counts (jobs, minutes), NaN = missing; ValueError if there are no counts.

    earlier : counts of earlier days, (days, samples of each day, jobs, minutes). If it is None,
        `counts` of 1.5 days or more are split into days of 24 hours. The last of these days ends
        with the last count.
    at : time of "now" as HH:MM, ISO 8601 or minutes after the last day's first count; None = end of
        the day.
    end_minute : minutes since 1970, local time, at the end of the counts. It is needed if `at` is
        HH:MM or ISO 8601.
    """
    jobs, counts = tuple(jobs), np.asarray(counts, float)
    if earlier is None and counts.shape[1] >= 1.5 * DAY_MINUTES:
        earlier, counts = _days_of_24_hours(counts)
    single_day = earlier is None or not len(earlier)
    length = counts.shape[1]
    if not length:
        raise ValueError("there is no complete minute of counts yet; try again in one or two")
    minutes = _minutes_until(at, length, end_minute)

    day = interpolated(counts)
    traces = Traces(jobs, day[None, None] if single_day else earlier, day[None])
    # Missing counts of idle jobs become 0, because a source may omit idle jobs.
    idle = _idle(day, traces.train)
    today = np.where(idle[:, None], 0.0, counts[:, :minutes])
    return History(jobs, today, traces, single_day, end_minute)


def _days_of_24_hours(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split counts (jobs, minutes) into earlier days and the last one, (jobs, DAY_MINUTES).

    The earlier days have shape (days, 1, jobs, DAY_MINUTES), and their missing minutes are
    interpolated. An incomplete first day is kept if at least half of it is there.
    """
    jobs, minutes = counts.shape
    days = (minutes + DAY_MINUTES // 2) // DAY_MINUTES
    absent = np.full((jobs, max(0, days * DAY_MINUTES - minutes)), np.nan)
    counts = np.concatenate([absent, counts], axis=1)[:, -days * DAY_MINUTES :]
    by_day = interpolated(counts).reshape(jobs, days, DAY_MINUTES).transpose(1, 0, 2)
    return by_day[:-1, None], counts[:, -DAY_MINUTES:]


def _minutes_until(at: At, length: int, end_minute: int | None) -> int:
    """Minutes from the first of `length` counts to the time `at` (see `history_of`)."""
    if at is None:
        return length
    text = str(at)
    if text.lstrip("-").isdigit():
        minutes = int(text)
    elif end_minute is None:
        raise ValueError(
            f"at={text!r} is not a number, and the counts have no clock times; "
            f"accepted: 1..{length}"
        )
    elif CLOCK_TIME.fullmatch(text):
        hour, of_hour = text.split(":")
        before_end = (end_minute - 60 * int(hour) - int(of_hour)) % DAY_MINUTES
        minutes = length - before_end
    else:
        at_minute = int(minutes_of(pd.Series([text]), f"at={text!r}")[0])
        minutes = at_minute - (end_minute - length)
    if 1 <= minutes <= length:
        return minutes
    accepted = f"1..{length}"
    if end_minute:
        first, last = (np.datetime64(end_minute - x, "m") for x in (length - 1, 0))
        accepted = f"{first} to {last}"
    raise ValueError(f"at={at} is not on the last day; accepted: {accepted}")


def _idle(today: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mask (jobs,) of jobs without requests `today`, (jobs, minutes), and on the training days."""
    return (today == 0).all(axis=1) & (train == 0).all(axis=(0, 1, 3))
