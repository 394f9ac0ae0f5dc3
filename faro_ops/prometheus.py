"""Requests per minute from a Prometheus server. A missing sample is NaN, never zero."""

import re
import time
from collections import Counter
from pathlib import Path

import numpy as np

from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.limits import check_size
from faro_ops.http import HttpClient, HttpError, check_address

SUM_BY = "sum by (...) the job's label"
MAX_POINTS = 11_000  # the most samples per series that Prometheus returns
# Regular expressions: a label's value in quotes; a counter's usual name and its labels; rate( and
# irate(; a range other than one minute.
VALUE = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
COUNTER = r"\b\w+_(?:total|count)\b(?:\{[^}]*\})?"
RATE = r"\bi?rate\s*\("
OTHER_RANGE = r"\[(?!1m\]|60s\]|\$)[^\]]*\]"
Series = tuple[dict[str, str], np.ndarray]  # (labels, values at the times of a query)


class BadQuery(ValueError):
    """Raised if Prometheus rejects a query; the message is Prometheus's own."""


class Prometheus:
    """A client of the Prometheus server at `url` (without /api/v1).

    Each request reads the token in the file `token_path`.
    """

    def __init__(self, url: str, token_path: str | None = None, timeout_s: float = 5.0):
        check_address(url, "prometheus")
        if token_path is not None and not Path(token_path).is_file():
            problem = "no such file; it must hold a bearer token"
            raise ValueError(f"prometheus_token={token_path}: {problem}")
        self.url = url
        token = (lambda: Path(token_path).read_text().strip()) if token_path else None
        hint = "name the file of a token with --prometheus-token"
        self._http = HttpClient(url, token, timeout_s, token_hint=hint)

    def query_range(
        self,
        query: str,
        times_s: np.ndarray,
        within_s: float | None = None,
        *,
        of_jobs: bool = False,
    ) -> list[Series]:
        """Labels and values per series at evenly spaced Unix times.

        A missing sample is NaN, a non-finite one is inf. `within_s` limits the whole request; see
        `HttpClient.request`. Raises BadQuery for a rejected query, HttpTimeout if the answer is not
        complete in time, OSError if nothing answers, and ValueError for a wrong token or server.
        With `of_jobs`, more series or samples than jobs may have are a ValueError, too.
        """
        step_s = float(times_s[1] - times_s[0]) if len(times_s) > 1 else MINUTE_S
        form = {
            "query": query,
            "start": f"{times_s[0]:.3f}",
            "end": f"{times_s[-1]:.3f}",
            "step": f"{step_s:g}",
        }
        try:
            path = "/api/v1/query_range"
            answer = self._http.request("POST", path, form=form, within_s=within_s)
            found = answer["data"]["result"]
            if of_jobs:  # before values take memory
                check_size(f"{self.url}: query {query!r}", len(found), len(times_s), SUM_BY)
            series: list[Series] = []
            for one in found:
                labels = {key: str(value) for key, value in one["metric"].items()}
                # A native histogram has no values, and the other queries keep theirs.
                series.append((labels, _values(one.get("values", []), times_s, step_s)))
            return series
        except HttpError as error:
            if error.status not in (400, 422):
                raise
            raise BadQuery(error.detail) from None
        except (AttributeError, KeyError, TypeError, IndexError, OverflowError):
            problem = "not a Prometheus server: unexpected answer of /api/v1/query_range"
            raise ValueError(f"{self.url}: {problem}") from None


def _values(samples: list, times_s: np.ndarray, step_s: float) -> np.ndarray:
    """The samples (time, value as text) at `times_s`, (times,)."""
    values = np.full(len(times_s), np.nan)
    for time_s, text in samples:
        place = round((float(time_s) - times_s[0]) / step_s)
        value = float(text)
        values[place] = value if np.isfinite(value) else np.inf
    return values


def check_counts_query(query: str) -> None:
    """Raise ValueError if a query obviously does not count the requests of one minute.

    The message suggests a correction. A query with * or / is accepted, because it may convert
    another unit to counts.

    >>> check_counts_query('sum by (job) (rate(requests_total[5m]))')
    Traceback (most recent call last):
    ...
    ValueError: query 'sum by (job) (rate(requests_total[5m]))' gives requests per second; \
ask for the requests of one minute: 'sum by (job) (increase(requests_total[1m]))'
    """
    bare = re.sub(VALUE, '""', query)  # the query with empty label values
    if "*" in bare or "/" in bare:
        return
    if re.search(RATE, bare):
        wrong = "gives requests per second"
        right = re.sub(RATE, "increase(", bare)
    elif re.search(r"\bincrease\s*\(", bare) and re.search(OTHER_RANGE, bare):
        wrong = "does not count over one minute"
        right = bare
    elif "[" not in bare and re.search(COUNTER, bare):
        wrong = "is a counter since the start of the process"
        right = re.sub(COUNTER, r"increase(\g<0>[1m])", bare)
    else:
        return
    right = re.sub(r"\[[^\]]*\]", "[1m]", right)
    values = iter(re.findall(VALUE, query))
    right = re.sub('""', lambda _: next(values), right)  # put the label values back
    raise ValueError(f"query {query!r} {wrong}; ask for the requests of one minute: {right!r}")


def read_prometheus(
    url: str,
    query: str,
    *,
    minutes: int,
    label: str | None = None,
    end_s: float | None = None,
    token_path: str | None = None,
    counts: bool = True,
    step_s: float = MINUTE_S,
) -> tuple[tuple[str, ...], np.ndarray]:
    """The sorted names of the jobs and their requests per minute, shape (jobs, minutes).

    A missing count is NaN.

    query : query for each job's requests in the last minute, such as
        `sum by (job) (increase(requests_total[1m]))`.
    minutes : number of complete minutes before `end_s`. The oldest minute comes first.
    label : the label that names the job; None if each series has a single label.
    end_s : Unix time; None: now.
    token_path : file with a bearer token, or None.
    counts : False if the query gives another quantity than requests; `check_counts_query` is then
        skipped.
    step_s : length of the windows that the query counts, if it is not a minute.
    """
    if counts:
        check_counts_query(query)
    points = round(minutes * MINUTE_S / step_s)
    if not 1 <= points <= MAX_POINTS:
        limits = f"1..{MAX_POINTS}, the most that Prometheus returns per series"
        raise ValueError(f"minutes={minutes} must lie in {limits}")
    last_s = (time.time() if end_s is None else end_s) // MINUTE_S * MINUTE_S
    times_s = last_s - step_s * np.arange(points - 1, -1, -1)
    try:
        series = Prometheus(url, token_path, timeout_s=30.0).query_range(
            query, times_s, of_jobs=True
        )
    except BadQuery as error:
        raise ValueError(f"{url}: query {query!r} was refused: {error}") from None
    except OSError as error:
        detail = getattr(error, "detail", error)
        raise ConnectionError(f"{url}: no answer from Prometheus ({detail})") from None
    if not series:
        raise ValueError(f"{url}: query {query!r} has no series in the last {minutes} minutes")
    names = [_job_name(labels, label, query) for labels, _ in series]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        problem = f"several series belong to job {name!r}; {SUM_BY}"
        raise ValueError(f"query {query!r}: {problem}")
    rows = np.array([values for _, values in series])  # (series, minutes)
    rows[np.isinf(rows)] = np.nan
    if (rows < 0).any():
        raise ValueError(f"query {query!r}: negative values; increase(...[1m]) counts requests")
    order = np.argsort(names)
    return tuple(np.array(names)[order].tolist()), rows[order]


def _job_name(labels: dict[str, str], label: str | None, query: str) -> str:
    named = {key: value for key, value in labels.items() if key != "__name__"}
    if label is None and len(named) == 1:
        return next(iter(named.values()))
    if label in named:
        return named[label]
    given = ", ".join(sorted(named)) or "none"
    problem = f"label={label!r} does not name the job; its series have the labels: {given}"
    raise ValueError(f"query {query!r}: {problem}")
