"""What has been asked so far, and what a forecaster may learn from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.forecast import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, fit, forecasters
from faro_lib.forecast.kalman import untrained
from faro_lib.workload import Job, Traces

DAY_MINUTES = 1440
LEARNT_FROM_DAYS, LEARNT_FROM_TODAY = "ar", "persistence"
UNFIT = {"oracle": "knows what is to come", "bayes": "needs a posterior, which the pipeline fits"}
MIN_HISTORY_MINUTES = (
    CONTEXT_MINUTES + HORIZON_MINUTES + 1
)  # of a day that something can be learnt from, or that can be replayed


@dataclass(frozen=True, slots=True)
class History:
    """Requests per minute up to now.

    Attributes
    ----------
    today : shape (jobs, minutes), oldest first, NaN = missing.
    traces : whole counts to learn from: earlier days, or today itself where there are none.
    missing : job-minutes of today that are missing.
    """

    jobs: tuple[Job, ...]
    today: np.ndarray
    traces: Traces

    @property
    def missing(self) -> int:
        return int(np.isnan(self.today).sum())

    @property
    def single_day(self) -> bool:
        """Whether there is no earlier day: the day shape is unknown, and what is replayed was learnt from, too."""
        return self.traces.days == 1 and self.traces.train.shape == (1, 1, *self.traces.evaluation.shape[1:])

    @property
    def short(self) -> bool:
        """Whether there is too little to learn from, or to replay."""
        return self.traces.train.shape[-1] < MIN_HISTORY_MINUTES

    def forecaster(self, name: str | None = None) -> Forecaster:
        """`name`, or the pooled autoregression; with a single day, what a minute says of the next.

        With less than that, the one that `faro run` begins with, which need not learn.
        """
        if name in UNFIT:
            accepted = ", ".join(one for one in forecasters() if one not in UNFIT)
            raise ValueError(f"forecaster={name!r} {UNFIT[name]}; accepted: {accepted}")
        if self.short and name is None:
            return untrained(tuple(job.name for job in self.jobs))
        return fit(name or (LEARNT_FROM_TODAY if self.single_day else LEARNT_FROM_DAYS), self.traces)


def history_of(jobs, counts, *, earlier=None, at: int | None = None) -> History:
    """From counts as they were read.

    Parameters
    ----------
    counts : (jobs, minutes), NaN = missing; more than two days of 1,440 minutes are split into days that end now.
    earlier : (days, samples, jobs, minutes) whole counts of earlier days, if the source tells days apart.
    at : minutes of the last day that have been seen; None for all.
    """
    jobs, counts = tuple(jobs), np.asarray(counts, float)
    if counts.shape[1] >= 2 * DAY_MINUTES and earlier is None:
        days = counts.shape[1] // DAY_MINUTES
        by_day = counts[:, -days * DAY_MINUTES :].reshape(len(jobs), days, DAY_MINUTES).transpose(1, 0, 2)
        earlier, counts = np.stack([_whole(jobs, day) for day in by_day[:-1]])[:, None], by_day[-1]
    if not counts.shape[1]:
        raise ValueError("no minute has been counted to its end yet; try again in one or two")
    minutes = counts.shape[1] if at is None else at
    if not 1 <= minutes <= counts.shape[1]:
        raise ValueError(f"at={minutes} is not a minute of the last day; accepted: 1..{counts.shape[1]}")
    day = _whole(jobs, counts)
    train = day[None, None] if earlier is None or not len(earlier) else earlier
    return History(jobs, counts[:, :minutes], Traces(jobs, train, day[None]))


def _whole(jobs, counts: np.ndarray) -> np.ndarray:
    """Counts to learn from: straight lines across what is missing, which decisions are never shown."""
    filled, minute = counts.copy(), np.arange(counts.shape[1])
    for row, job in zip(filled, jobs):
        known = np.isfinite(row)
        if not known.any():
            raise ValueError(
                f"job {job.name!r} has no count in {len(row)} minutes; is its name what the source calls it?"
            )
        row[~known] = np.interp(minute[~known], minute[known], row[known])
    return np.rint(filled).astype(np.int64)


def history_from_csv(path: str, jobs: str | None = None, at: int | None = None) -> History:
    """From a CSV of counts (or a workload's name), as the pipeline reads it; its last day is today."""
    from faro_lib.workload.tables import load_workload

    traces = load_workload(path, jobs)
    return history_of(traces.jobs, traces.evaluation[0], earlier=traces.train, at=at)


def history_from_prometheus(
    url: str,
    query: str,
    jobs: str | None = None,
    *,
    hours: int,
    label: str | None = None,
    end_s: float | None = None,
    token_path: str | None = None,
) -> History:
    """From a range query (see `workload.prometheus`); a table of jobs chooses among its series and says what they promise."""
    from faro_lib.workload.prometheus import read_prometheus

    names, counts = read_prometheus(url, query, minutes=hours * 60, label=label, end_s=end_s, token_path=token_path)
    if jobs is None:
        return history_of([Job(name) for name in names], counts)
    return history_of(*_promised(jobs, names, counts, "the series of the query"))


def history_from_journal(path: str, jobs: str | None = None, at: int | None = None) -> History:
    """From what `faro run` saw and wrote down; by default the jobs are promised what they were promised then.

    Minutes that no tick saw, while no controller ran, are missing.
    """
    from faro_lib.control.journal import arrivals, read

    header, ticks = read(path)
    counts = arrivals(header, ticks)
    if jobs is None:
        return history_of(header.jobs, counts, at=at)
    names = tuple(job.name for job in header.jobs)
    return history_of(*_promised(jobs, names, counts, "the jobs of the journal"), at=at)


def _promised(path: str, names, counts: np.ndarray, source: str) -> tuple[tuple[Job, ...], np.ndarray]:
    """The jobs of a table, and their rows of the counts."""
    from faro_lib.workload.readers import read_jobs

    promised = read_jobs(path)
    row = {name: n for n, name in enumerate(names)}
    for job in promised:
        if job.name not in row:
            raise ValueError(f"{path}: job {job.name!r} is not among {source}: {', '.join(names)}")
    return promised, counts[[row[job.name] for job in promised]]
