"""Requests per minute from a Prometheus server. A missing sample is NaN, never zero."""

import re
import time
from pathlib import Path

import numpy as np

from faro_lib.workload.jobs import MINUTE_S
from faro_ops.http import HttpClient, HttpError, check_address

MAX_POINTS = 11_000  # the most samples per series that Prometheus returns
VALUE = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"  # regular expression of a label's value in quotes
COUNTER = r"\b\w+_(?:total|count)\b(?:\{[^}]*\})?"  # regular expression of a counter's usual name and its labels
Series = tuple[dict[str, str], np.ndarray]  # (labels, values at the times of a query)


class BadQuery(ValueError):
    """Raised if Prometheus rejects a query; the message is Prometheus's own."""


class Prometheus:
    """A client of the Prometheus server at `url` (without /api/v1). Each request reads the token in `token_path`."""

    def __init__(self, url: str, token_path: str | None = None, timeout_s: float = 5.0):
        check_address(url, "prometheus")
        if token_path is not None and not Path(token_path).is_file():
            raise ValueError(
                f"prometheus_token={token_path}: no such file; it must hold a bearer token"
            )
        self.url = url
        token = (lambda: Path(token_path).read_text().strip()) if token_path else None
        self._http = HttpClient(
            url, token, timeout_s, token_hint="name the file of a token with --prometheus-token"
        )

    def query_range(self, query: str, times_s: np.ndarray) -> list[Series]:
        """Labels and values per series at evenly spaced Unix times. A missing sample is NaN, a non-finite one is inf.

        Raises BadQuery for a rejected query, OSError if nothing answers, and ValueError for a wrong token or server.
        """
        step_s = float(times_s[1] - times_s[0]) if len(times_s) > 1 else MINUTE_S
        span = {"start": f"{times_s[0]:.3f}", "end": f"{times_s[-1]:.3f}", "step": f"{step_s:g}"}
        try:
            answer = self._http.request(
                "POST", "/api/v1/query_range", form={"query": query, **span}
            )
            return [
                (
                    {key: str(value) for key, value in one["metric"].items()},
                    _values(one["values"], times_s, step_s),
                )
                for one in answer["data"]["result"]
            ]
        except HttpError as error:
            if error.status not in (400, 422):
                raise
            raise BadQuery(error.detail) from None
        except (AttributeError, KeyError, TypeError, IndexError, OverflowError):
            raise ValueError(
                f"{self.url}: not a Prometheus server: unexpected answer of /api/v1/query_range"
            ) from None


def _values(samples: list, times_s: np.ndarray, step_s: float) -> np.ndarray:
    values = np.full(len(times_s), np.nan)
    for time_s, text in samples:
        value = float(text)
        values[round((float(time_s) - times_s[0]) / step_s)] = (
            value if np.isfinite(value) else np.inf
        )
    return values


def check_counts_query(query: str) -> None:
    """Raise ValueError if a query obviously does not count the requests of one minute.

    The message suggests a correction. A query with * or / is accepted, because it may convert another unit to counts.

    >>> check_counts_query('sum by (job) (rate(requests_total[5m]))')
    Traceback (most recent call last):
    ...
    ValueError: query 'sum by (job) (rate(requests_total[5m]))' gives requests per second; ask for the requests of one \
minute: 'sum by (job) (increase(requests_total[1m]))'
    """
    bare, values = re.sub(VALUE, '""', query), iter(re.findall(VALUE, query))
    if "*" in bare or "/" in bare:
        return
    if re.search(r"\bi?rate\s*\(", bare):
        wrong, right = "gives requests per second", re.sub(r"\bi?rate\s*\(", "increase(", bare)
    elif re.search(r"\bincrease\s*\(", bare) and re.search(r"\[(?!1m\]|60s\]|\$)[^\]]*\]", bare):
        wrong, right = "does not count over one minute", bare
    elif "[" not in bare and re.search(COUNTER, bare):
        wrong, right = (
            "is a counter since the start of the process",
            re.sub(COUNTER, r"increase(\g<0>[1m])", bare),
        )
    else:
        return
    right = re.sub('""', lambda _: next(values), re.sub(r"\[[^\]]*\]", "[1m]", right))
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
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted names of the jobs and their requests per minute, shape (jobs, minutes). A missing count is NaN.

    query : query for each job's requests in the last minute, such as `sum by (job) (increase(requests_total[1m]))`.
    minutes : number of complete minutes before `end_s` (Unix time; None = now). The oldest minute comes first.
    label : the label that names the job; None if each series has a single label.
    counts : False if the query gives another quantity than requests; `check_counts_query` is then skipped.
    """
    if counts:
        check_counts_query(query)
    if not 1 <= minutes <= MAX_POINTS:
        raise ValueError(
            f"minutes={minutes} must lie in 1..{MAX_POINTS}, the most that Prometheus returns per series"
        )
    last_s = (time.time() if end_s is None else end_s) // MINUTE_S * MINUTE_S
    times_s = last_s - MINUTE_S * np.arange(minutes - 1, -1, -1)
    try:
        series = Prometheus(url, token_path, timeout_s=30.0).query_range(query, times_s)
    except BadQuery as error:
        raise ValueError(f"{url}: query {query!r} was refused: {error}") from None
    except OSError as error:
        raise ConnectionError(
            f"{url}: no answer from Prometheus ({getattr(error, 'detail', error)})"
        ) from None
    if not series:
        raise ValueError(f"{url}: query {query!r} has no series in the last {minutes} minutes")
    names = [_job_name(labels, label, query) for labels, _ in series]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"query {query!r}: several series belong to job {repeated[0]!r}; sum by (...) the job's label"
        )
    rows = np.array([values for _, values in series])
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
    raise ValueError(
        f"query {query!r}: label={label!r} does not name the job; its series have the labels: {given}"
    )
