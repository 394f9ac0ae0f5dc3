"""Tables of counts with a column `time`: times to minutes, and counts to days from midnight."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S, Job, Traces
from faro_lib.workload.limits import IDS, check_size

MILLISECONDS_FROM = 1e11  # larger Unix times are in milliseconds
YEAR_2000_S, LATEST_S = 946_684_800, 4_102_444_800  # Unix times of the years 2000 and 2100
PER_SECOND = {"seconds": 1, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
MAX_DAYS = 366
OFFSET = r"(?:Z|[+-]\d{2}(?::?\d{2})?)$"  # the UTC offset at the end of an ISO 8601 time


def minutes_of(times: pd.Series, where: str) -> np.ndarray:
    """Whole minutes since 1970-01-01 00:00 local time of ISO 8601 or Unix times (in s or ms).

    Local time is UTC plus the offset of the latest entry, or UTC for Unix times. A ValueError names
    the file `where`.

    >>> minutes_of(pd.Series(["1970-01-02T01:02+02:00", "1970-01-01T22:01:30Z"]), "x.csv").tolist()
    [1502, 1441]
    >>> minutes_of(pd.Series([86_400, 86_460]), "x.csv").tolist()
    [1440, 1441]
    """
    try:
        stamps = _local_stamps(times)
        if stamps.isna().any():
            raise ValueError("a time is missing")
        minutes = stamps.to_numpy("datetime64[m]").astype(np.int64)
        late = minutes >= LATEST_S // MINUTE_S
        if late.any():
            raise ValueError(f"{stamps.iloc[int(late.argmax())]} is after the year 2100")
        return minutes
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{where}: time is neither ISO 8601 nor Unix time in s or ms ({reason})"
        ) from None


def likely_unit(unix_time: float) -> str:
    """What the unit of a Unix time seems to be, as the end of a sentence; "" if no unit fits.

    >>> likely_unit(1.7e15)
    '; it looks like microseconds'
    """
    for unit, per_s in PER_SECOND.items():
        if YEAR_2000_S <= unix_time / per_s < LATEST_S:
            return f"; it looks like {unit}"
    return ""


def _local_stamps(times: pd.Series) -> pd.Series:
    """The times as datetimes without a time zone, in local time (see `minutes_of`)."""
    if pd.api.types.is_datetime64_any_dtype(times):
        if times.dt.tz is None:
            return times
        return times.dt.tz_convert("UTC").dt.tz_localize(None) + times.max().utcoffset()
    numbers = pd.to_numeric(times, errors="coerce")
    if numbers.notna().all():
        in_ms = numbers.iloc[0] > MILLISECONDS_FROM
        late = (numbers >= LATEST_S * (1000 if in_ms else 1)).to_numpy()
        if late.any():
            first = float(numbers.iloc[int(late.argmax())])
            raise ValueError(f"{first:.0f} is after the year 2100{likely_unit(first)}")
        return pd.to_datetime(numbers, unit="ms" if in_ms else "s")
    zoned = pd.Timestamp(times.iloc[0]).tz is not None
    stamps = pd.to_datetime(times, format="ISO8601", utc=zoned)
    if not zoned:
        return stamps
    latest = pd.Timestamp(times.iloc[stamps.argmax()])
    return stamps.dt.tz_convert(latest.tz).dt.tz_localize(None)


def clock_minutes(times: pd.Series) -> np.ndarray:
    """As `minutes_of`, but each time by the clock at that time, so with its own UTC offset.

    >>> clock_minutes(pd.Series(["1970-01-01T01:59+01:00", "1970-01-01T03:00+02:00"])).tolist()
    [119, 180]
    """
    stamps = times
    if pd.api.types.is_datetime64_any_dtype(times):
        stamps = times if times.dt.tz is None else times.dt.tz_localize(None)
    elif pd.to_numeric(times, errors="coerce").isna().any():
        if pd.Timestamp(times.iloc[0]).tz is not None:
            times = times.str.strip().str.replace(OFFSET, "", regex=True)
        stamps = pd.to_datetime(times, format="ISO8601")
    else:
        stamps = _local_stamps(times)
    return stamps.to_numpy("datetime64[m]").astype(np.int64)


def clock_shifts(table: pd.DataFrame) -> np.ndarray:
    """By how many minutes the clock differs from the column `minute`, from its first minute on.

    It differs where the UTC offset in the column `time` is not that of the latest entry.
    """
    minute = table["minute"].to_numpy()
    first = int(minute.min())
    shift = np.full(int(np.ptp(minute)) + 1, np.nan)
    shift[minute - first] = clock_minutes(table["time"]) - minute
    return pd.Series(shift).ffill().to_numpy().astype(np.int64)


def by_the_clock(first: int, counts: np.ndarray, shift: np.ndarray) -> tuple[int, np.ndarray]:
    """Counts by the time of day that clocks showed; the first minute and counts (jobs, minutes).

    Minute n of `counts` (jobs, minutes) was at `first` + n + `shift[n]` by the clock. If clocks
    were put forward, the skipped minutes are interpolated. If they were put back, the minutes that
    came twice have the mean of both counts.

    >>> by_the_clock(0, np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([0, 0, 1, 1]))[1].tolist()
    [[1.0, 2.0, 2.5, 3.0, 4.0]]
    >>> by_the_clock(0, np.array([[1.0, 2.0, 4.0, 4.0]]), np.array([1, 1, 0, 0]))[1].tolist()
    [[1.0, 3.0, 4.0]]
    """
    if not np.ptp(shift):
        return first + int(shift[0]), counts
    at = np.arange(counts.shape[1]) + shift
    means = pd.DataFrame(counts.T).groupby(at).mean()  # NaN only if all counts are NaN
    minutes = means.reindex(np.arange(at.min(), at.max() + 1))
    skipped = ~minutes.index.isin(at)
    minutes[skipped] = minutes.interpolate()[skipped]
    return first + int(at.min()), minutes.to_numpy().T


def timed_counts(
    table: pd.DataFrame, names: Sequence[str], where: str, column: str = "requests"
) -> tuple[int, np.ndarray]:
    """The first minute, and `column` (jobs, minutes) from it on; a missing row gives NaN."""
    minute = table["minute"].to_numpy()
    first = int(minute.min())
    length = int(np.ptp(minute)) + 1
    if length > MAX_DAYS * DAY_MINUTES:
        raise ValueError(
            f"{where}: time covers {length // DAY_MINUTES} days; at most {MAX_DAYS} are accepted"
        )
    check_size(where, len(names), length, IDS)
    step = np.gcd.reduce(minute - first)
    if step > 1:
        raise ValueError(
            f"{where}: the rows are {step} minutes apart; a row has the requests of one minute"
        )
    row = table["job"].map({name: n for n, name in enumerate(names)}).to_numpy()
    counts = np.full((len(names), length), np.nan)
    counts[row, minute - first] = table[column]
    return first, counts


def days_from_midnight(jobs: tuple[Job, ...], first: int, counts: np.ndarray, where: str) -> Traces:
    """Traces of days from midnight to midnight.

    `counts` (jobs, minutes) begin at minute `first` since 1970. An incomplete last day is left out.
    The first day is left out if the counts begin after noon. Minutes before a job's first count get
    0, and forecasters treat them as unobserved (`forecaster.imputed`). Other gaps raise ValueError.
    """
    first_day, first_of_day = divmod(first, DAY_MINUTES)
    left_out = int(first_of_day > DAY_MINUTES / 2)
    before = np.full((len(jobs), first_of_day), np.nan)
    counts = np.concatenate([before, counts], axis=1)
    days = counts.shape[1] // DAY_MINUTES
    if days <= left_out:
        problem = "there is no complete day from midnight to midnight"
        raise ValueError(f"{where}: {problem}; `faro recommend` needs none")
    counts = counts[:, : days * DAY_MINUTES]
    started = np.logical_or.accumulate(~np.isnan(counts), axis=1)
    gaps = np.argwhere(started & np.isnan(counts))
    if len(gaps):
        job, minute = gaps[0]
        at = np.datetime64(first_day * DAY_MINUTES + int(minute), "m")
        raise ValueError(
            f"{where}: {at} is missing for job {jobs[job].name!r}; "
            "every minute after its first is needed"
        )
    whole = np.nan_to_num(counts).astype(np.int64)
    by_day = whole.reshape(len(jobs), days, 1, DAY_MINUTES).transpose(1, 2, 0, 3)
    return Traces(jobs, by_day[left_out:-1], by_day[-1])
