"""Requests per minute that controllers recorded, in Prometheus or a journal, by local days."""

import time
from collections.abc import Sequence
from itertools import chain, groupby

import numpy as np
import pandas as pd

from faro_lib.workload import Job, Traces
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S
from faro_lib.workload.timed import by_the_clock, days_from_midnight
from faro_ops.journal.reading import counts_by_minute, recorded
from faro_ops.prometheus import read_prometheus

# Query for the requests per minute that `faro run` exports. The empty alternative after `|` matches
# series without a namespace.
EXPORTED = 'max by (inference_job) (faro_arrivals_per_minute{{namespace=~"{}|"}})'
WEEK_MINUTES = 7 * DAY_MINUTES


def exported_days(
    url: str, jobs: tuple[Job, ...], token_path: str | None = None, namespace: str = ".*"
) -> Traces:
    """Counts that controllers of these jobs exported to Prometheus, for the last week's days.

    namespace : regular expression for the namespaces of the controllers.
    Missing minutes are interpolated. ValueError if there is no complete day, OSError if Prometheus
    does not answer.
    """
    end_s = time.time()
    query = EXPORTED.format(namespace)
    names, counts = read_prometheus(
        url, query, minutes=WEEK_MINUTES, end_s=end_s, token_path=token_path
    )
    return _days(jobs, rows_of(jobs, names, counts), end_s, url)


def journal_days(path: str, jobs: tuple[Job, ...]) -> Traces:
    """Counts that a journal of `faro run` has for the complete days of the last week.

    Missing minutes are interpolated. ValueError if there is no complete day, OSError if there is no
    journal.
    """
    since_s = time.time() - MINUTE_S * (WEEK_MINUTES + DAY_MINUTES)
    # minute -> counts (jobs,). If time 0 has moved because the clock was set back, minutes go on; a
    # run whose minutes begin again is another one, which is not joined.
    counted: dict[int, np.ndarray] = {}
    origin_s = None
    for _, group in groupby(recorded(path, since_s), lambda pair: id(pair[0])):
        pairs = iter(group)
        header, first = next(pairs)
        if header.origin_s is None:
            continue
        begins_again = first.step.observation.minute < max(counted, default=0)
        if header.origin_s != origin_s and begins_again:
            counted = {}
        origin_s = header.origin_s
        names = [job.name for job in header.jobs]
        of_part = counts_by_minute(chain([first], (tick for _, tick in pairs)))
        for minute, counts in of_part.items():
            new = rows_of(jobs, names, counts[:, None])[:, 0]
            before = counted.get(minute, new)
            counted[minute] = np.where(np.isnan(new), before, new)
    if origin_s is None:
        raise ValueError(f"{path}: no decision has been made yet")
    last = max(counted, default=-1) + 1
    unknown = np.full(len(jobs), np.nan)
    week = range(last - WEEK_MINUTES, last)
    counts = np.stack([counted.get(minute, unknown) for minute in week], axis=1)
    return _days(jobs, counts, origin_s + MINUTE_S * last, path)


def _days(jobs: tuple[Job, ...], counts: np.ndarray, end_s: float, where: str) -> Traces:
    """Split counts (jobs, minutes) that end at Unix time `end_s` into complete local days.

    Raises ValueError if there is none.
    """
    known = np.isfinite(counts).any(axis=0)
    if not known.any():
        raise ValueError(f"{where}: no counts of these jobs")
    counts = local_counts(counts[:, known.argmax() :], end_s)
    first = local_minute(end_s) - counts.shape[1]
    return days_from_midnight(jobs, first, interpolated(counts), where)


def local_minute(at_s: float) -> int:
    """Convert a Unix time to minutes since 1970 in local time."""
    return int((at_s + time.localtime(at_s).tm_gmtoff) // MINUTE_S)


def local_counts(counts: np.ndarray, end_s: float) -> np.ndarray:
    """Counts (jobs, minutes) that end at Unix time `end_s`, by the clock of this machine's zone.

    If the clocks have changed meanwhile, there are more or fewer minutes (`by_the_clock`).
    """
    minutes = counts.shape[1]
    if not minutes:
        return counts
    # The offset from UTC changes at a quarter of an hour at most.
    end = int(end_s // MINUTE_S)
    quarters = np.arange(end - minutes, end) // 15
    starts, quarter = np.unique(quarters, return_inverse=True)
    offsets_s = np.array([time.localtime(15 * MINUTE_S * one).tm_gmtoff for one in starts.tolist()])
    shift = (offsets_s[quarter] - time.localtime(end_s).tm_gmtoff) // MINUTE_S
    return by_the_clock(0, counts, shift.astype(np.int64))[1]


def rows_of(jobs: Sequence[Job], names: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """The rows of `counts` (names, minutes) for `jobs`, in the order of `jobs`.

    A job that is not in `names` gets NaN.
    """
    row = dict(zip(names, counts))
    unknown = np.full(counts.shape[1], np.nan)
    return np.stack([row.get(job.name, unknown) for job in jobs])


def interpolated(counts: np.ndarray) -> np.ndarray:
    """Counts (jobs, minutes) as integers, with missing minutes interpolated.

    Minutes before a job's first count become 0.
    """
    if np.isnan(counts).all():
        raise ValueError(
            f"no job has a count in {counts.shape[1]} minutes; does the source use the same names?"
        )
    known = pd.DataFrame(counts.T).interpolate().fillna(0).to_numpy().T
    return np.rint(known).astype(np.int64, order="C")
