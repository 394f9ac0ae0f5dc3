"""Read requests per minute, for forecasters and replays, from a table, Prometheus or a journal of `faro run`."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.forecast import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, fit, forecasters
from faro_lib.workload import Job, Traces
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S
from faro_lib.workload.readers import is_table, read_counts, read_jobs, traces_of_minutes
from faro_lib.workload.tables import load_workload
from faro_lib.workload.timed import days_from_midnight, minutes_of, timed_counts
from faro_ops.controller.journal import arrivals, parts, with_same_jobs
from faro_ops.prometheus import read_prometheus

# Query for the requests per minute that `faro run` exports; the empty alternative after `|` matches series without namespace.
EXPORTED = 'max by (inference_job) (faro_arrivals_per_minute{{namespace=~"{}|"}})'
UNFIT = {"oracle": "knows the future", "bayes": "needs a posterior, which the pipeline fits"}
At = str | int | None  # a minute of the last day: its number, HH:MM or ISO 8601
WEEK_MINUTES = 7 * DAY_MINUTES
MIN_HISTORY_MINUTES = (
    CONTEXT_MINUTES + HORIZON_MINUTES + 1
)  # minimum to fit a forecaster or to replay a day


@dataclass(frozen=True, slots=True)
class History:
    """Requests per minute of the last day and earlier days. "Now" is a time on the last day, usually its end.

    Attributes
    ----------
    today : counts of the last day until now, (jobs, minutes), oldest first, NaN = missing.
    traces : `evaluation` is the full last day. `train` has the earlier days, or the last day if there are none.
    end_minute : minutes since 1970, local time, at the end of the last day; None if the counts have no times.
    replicas : replica counts now, (jobs,), NaN = unknown; None if unknown for every job.
    """

    jobs: tuple[Job, ...]
    today: np.ndarray
    traces: Traces
    end_minute: int | None = None
    replicas: np.ndarray | None = None

    def clock(self, minute: int) -> str:
        """A minute of the evaluation day as HH:MM, or as its number if the counts have no times."""
        if self.end_minute is None:
            return f"minute {minute}"
        hour, of_hour = divmod(
            (self.end_minute - self.traces.evaluation.shape[-1] + minute) % DAY_MINUTES, 60
        )
        return f"{hour:02d}:{of_hour:02d}"

    def span(self, first: int, last: int) -> str:
        """The time from minute `first` to `last` of the evaluation day as text, such as "08:00 to 11:00" (see `clock`)."""
        return f"{self.clock(first)} to {self.clock(last)}"

    @property
    def days(self) -> int:
        """Number of recorded days, including the evaluation day."""
        return 1 if self.single_day else self.traces.days + 1

    def moment(self, day: int, minute: int) -> str:
        """A minute of a day (0 to `days` - 1) as text, such as "2026-11-24T13:50" or "minute 830 of day 2 of 4"."""
        if self.end_minute is None:
            return f"{self.clock(minute)} of day {day + 1} of {self.days}"
        minutes_ago = (self.days - day) * self.traces.evaluation.shape[-1] - minute
        return str(np.datetime64(self.end_minute - minutes_ago, "m"))

    @property
    def missing(self) -> int:
        """Number of missing counts today, over all jobs and minutes."""
        return int(np.isnan(self.today).sum())

    @property
    def later_minutes(self) -> int:
        """Number of minutes from now to the end of the evaluation day."""
        return self.traces.evaluation.shape[-1] - self.today.shape[1]

    @property
    def unobserved(self) -> tuple[str, ...]:
        """Names of the jobs without requests today and on earlier days."""
        return tuple(
            job.name for job, none in zip(self.jobs, _idle(self.today, self.traces.train)) if none
        )

    @property
    def single_day(self) -> bool:
        """Whether there is no earlier day, so that the forecaster is fitted to the same day that is replayed."""
        return np.array_equal(self.traces.train, self.traces.evaluation[None])

    @property
    def short(self) -> bool:
        """Whether the days have fewer minutes than a forecaster and a replay need."""
        return self.traces.train.shape[-1] < MIN_HISTORY_MINUTES

    def forecaster(self, name: str | None = None) -> Forecaster:
        """Fit the forecaster `name` to `traces`. None means `auto`, which stays untrained if the history is `short`."""
        if name in UNFIT:
            accepted = ", ".join(one for one in forecasters() if one not in UNFIT)
            raise ValueError(f"forecaster={name!r} {UNFIT[name]}; accepted: {accepted}")
        if self.short and name is None:
            return fit("auto", replace(self.traces, train=self.traces.train[:0]))
        return fit(name or "auto", self.traces)


def history_of(
    jobs: Sequence[Job], counts, *, earlier=None, at: At = None, end_minute: int | None = None
) -> History:
    """The `History` of counts (jobs, minutes), NaN = missing; ValueError if there are no counts.

    earlier : counts of earlier days, (days, samples of each day, jobs, minutes). If it is None, `counts` of 1.5 days or
        more are split into days of 24 hours. The last of these days ends with the last count.
    at : time of "now" as HH:MM, ISO 8601 or minutes after the last day's first count; None = end of the day.
    end_minute : minutes since 1970, local time, at the end of the counts. It is needed if `at` is HH:MM or ISO 8601.
    """
    jobs, counts = tuple(jobs), np.asarray(counts, float)
    if counts.shape[1] >= 1.5 * DAY_MINUTES and earlier is None:
        # Keep an incomplete first day if `counts` covers at least half of it. Its other minutes become NaN.
        days = (counts.shape[1] + DAY_MINUTES // 2) // DAY_MINUTES
        absent = np.full((len(jobs), max(0, days * DAY_MINUTES - counts.shape[1])), np.nan)
        counts = np.concatenate([absent, counts], axis=1)[:, -days * DAY_MINUTES :]
        by_day = _interpolated(counts).reshape(len(jobs), days, DAY_MINUTES).transpose(1, 0, 2)
        earlier, counts = by_day[:-1, None], counts[:, -DAY_MINUTES:]
    if not counts.shape[1]:
        raise ValueError("there is no complete minute of counts yet; try again in one or two")
    length = counts.shape[1]
    minutes = length if at is None else _minutes_until(str(at), length, end_minute)
    if not 1 <= minutes <= length:
        times = [str(np.datetime64(end_minute - x, "m")) for x in (length - 1, 0) if end_minute]
        raise ValueError(
            f"at={at} is not on the last day; accepted: {' to '.join(times) or f'1..{length}'}"
        )
    day = _interpolated(counts)
    traces = Traces(
        jobs, day[None, None] if earlier is None or not len(earlier) else earlier, day[None]
    )
    idle = _idle(
        day, traces.train
    )  # missing counts of idle jobs become 0, because a source may omit idle jobs
    return History(jobs, np.where(idle[:, None], 0.0, counts[:, :minutes]), traces, end_minute)


def _idle(today: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mask (jobs,) of jobs without requests in `today`, (jobs, minutes), and on the training days."""
    return (today == 0).all(axis=1) & (train == 0).all(axis=(0, 1, 3))


def _minutes_until(at: str, length: int, end_minute: int | None) -> int:
    """Minutes from the first count of the last day to the time `at` (see `history_of`); `length` is the number of counts."""
    if at.lstrip("-").isdigit():
        return int(at)
    if end_minute is None:
        raise ValueError(
            f"at={at!r} is not a number, and the counts have no clock times; accepted: 1..{length}"
        )
    if not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", at):
        return int(minutes_of(pd.Series([at]), f"at={at!r}")[0]) - (end_minute - length)
    hour, of_hour = at.split(":")
    return length - (end_minute - 60 * int(hour) - int(of_hour)) % DAY_MINUTES


def _interpolated(counts: np.ndarray) -> np.ndarray:
    """Counts (jobs, minutes) as integers, with missing minutes interpolated, and 0 before a job's first count."""
    if np.isnan(counts).all():
        raise ValueError(
            f"no job has a count in {counts.shape[1]} minutes; does the source use the same names?"
        )
    return np.rint(pd.DataFrame(counts.T).interpolate().fillna(0).to_numpy().T).astype(
        np.int64, order="C"
    )


def history_from_csv(path: str, jobs: str | None = None, at: At = None) -> History:
    """The history in the table of counts at `path`, or in the built-in workload named `path`."""
    table = read_jobs(jobs) if jobs else None
    rows, names = read_counts(path, table) if is_table(path) else (pd.DataFrame(), [])
    if "time" in rows:
        first, counts = timed_counts(rows, names, path)
        history = history_of(
            table or [Job(name) for name in names],
            counts,
            at=at,
            end_minute=first + counts.shape[1],
        )
    else:
        traces = (
            traces_of_minutes(Path(path), rows, names, table)
            if names
            else load_workload(path, jobs)
        )
        history = history_of(traces.jobs, traces.evaluation[0], earlier=traces.train, at=at)
    if "replicas" not in rows:
        return history
    numbers = rows.assign(replicas=pd.to_numeric(rows["replicas"], errors="coerce")).sort_values(
        ["day", "minute"]
    )
    now = numbers["minute"].max() - history.later_minutes
    later = (numbers["day"] == numbers["day"].max()) & (numbers["minute"] > now)
    return replace(
        history,
        replicas=numbers[~later].groupby("job")["replicas"].last().reindex(names).to_numpy(float),
    )


def history_from_prometheus(
    url: str,
    query: str,
    jobs: str | None,
    *,
    hours: int,
    label: str | None = None,
    token_path: str | None = None,
) -> History:
    """The history of the last `hours`, by a range query to Prometheus.

    `label` is the Prometheus label that names the job. If `jobs` is the path of a jobs table, only jobs in it are read.
    """
    end_s = time.time()
    names, counts = read_prometheus(
        url, query, minutes=hours * 60, label=label, end_s=end_s, token_path=token_path
    )
    table = (
        [Job(name) for name in names]
        if jobs is None
        else _any_of(jobs, names, "the series of the query")
    )
    return history_of(table, rows_of(table, names, counts), end_minute=local_minute(end_s))


def exported_days(
    url: str, jobs: tuple[Job, ...], token_path: str | None = None, namespace: str = ".*"
) -> Traces:
    """Counts that controllers of these jobs exported to Prometheus, for the complete days of the last week.

    namespace : regular expression for the namespaces of the controllers.
    Missing minutes are interpolated. ValueError if there is no complete day, OSError if Prometheus does not answer.
    """
    end_s, query = time.time(), EXPORTED.format(namespace)
    names, counts = read_prometheus(
        url, query, minutes=WEEK_MINUTES, end_s=end_s, token_path=token_path
    )
    return _days(jobs, rows_of(jobs, names, counts), end_s, url)


def journal_days(path: str, jobs: tuple[Job, ...]) -> Traces:
    """Counts that a journal of `faro run` has for the complete days of the last week.

    Missing minutes are interpolated. ValueError if there is no complete day, OSError if there is no journal.
    """
    since_s = time.time() - MINUTE_S * (WEEK_MINUTES + DAY_MINUTES)
    recorded = [
        (header, ticks)
        for header, ticks in parts(path, since_s)
        if ticks and header.origin_s is not None
    ]
    if not recorded:
        raise ValueError(f"{path}: no decision has been made yet")
    # Keep the parts whose minute 0 is at the same time as minute 0 of the last part.
    recorded = [one for one in recorded if one[0].origin_s == recorded[-1][0].origin_s]
    ends = [ticks[-1].step.observation.minute for _, ticks in recorded]
    counts = np.full((len(jobs), ends[-1]), np.nan)
    for (header, ticks), end in zip(recorded, ends):
        new = rows_of(jobs, [job.name for job in header.jobs], arrivals(header, ticks))
        place = slice(end - new.shape[1], end)
        counts[:, place] = np.where(np.isnan(new), counts[:, place], new)
    return _days(
        jobs, counts[:, -WEEK_MINUTES:], (recorded[-1][0].origin_s or 0) + MINUTE_S * ends[-1], path
    )


def _days(jobs: tuple[Job, ...], counts: np.ndarray, end_s: float, where: str) -> Traces:
    """Split counts (jobs, minutes) that end at Unix time `end_s` into complete local days; ValueError if none."""
    known = np.isfinite(counts).any(axis=0)
    if not known.any():
        raise ValueError(f"{where}: no counts of these jobs")
    counts = counts[:, known.argmax() :]
    return days_from_midnight(
        jobs, local_minute(end_s) - counts.shape[1], _interpolated(counts), where
    )


def local_minute(at_s: float) -> int:
    """Convert a Unix time to minutes since 1970 in local time."""
    return int((at_s + time.localtime(at_s).tm_gmtoff) // MINUTE_S)


def history_from_journal(path: str, jobs: str | None = None, at: At = None) -> History:
    """The history in a journal of `faro run`, for the jobs in its last header; minutes that no observation covers are NaN.

    `jobs` is the path of a jobs table, which replaces the jobs and SLOs in the journal.
    """
    header, ticks = with_same_jobs(path)
    names = tuple(job.name for job in header.jobs)
    table = header.jobs if jobs is None else _any_of(jobs, names, "the jobs of the journal")
    history = history_of(table, rows_of(table, names, arrivals(header, ticks)), at=at)
    now = ticks[-1].step.observation.minute - history.later_minutes
    *_, last = [one for one in ticks if one.step.observation.minute <= now] or ticks
    return replace(
        history,
        replicas=rows_of(table, names, last.step.observation.running.astype(float)[:, None])[:, 0],
    )


def _any_of(path: str, names: Sequence[str], source: str) -> tuple[Job, ...]:
    """Read the jobs table at `path`; ValueError if no job is in `names`. `source` describes `names` in the message."""
    jobs = read_jobs(path)
    if not any(job.name in names for job in jobs):
        raise ValueError(f"{path}: job {jobs[0].name!r} is not among {source}: {', '.join(names)}")
    return jobs


def rows_of(jobs: Sequence[Job], names: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """The rows of `counts` (names, minutes) for `jobs`, in the order of `jobs`; NaN for a job that is not in `names`."""
    row, unknown = dict(zip(names, counts)), np.full(counts.shape[1], np.nan)
    return np.stack([row.get(job.name, unknown) for job in jobs])
