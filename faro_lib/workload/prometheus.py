"""Counts from a Prometheus server: one range query, a series a job. What is missing stays missing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np

from faro_lib.workload.jobs import MINUTE_S

MOST_POINTS = 11_000  # that the API returns of a series


def check_address(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"prometheus={url!r} must be an http:// or https:// address")


def read_prometheus(
    url: str,
    query: str,
    *,
    minutes: int,
    label: str | None = None,
    end_s: float | None = None,
    token_path: str | None = None,
    timeout_s: float = 30.0,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Requests per minute of every job, from a query like `sum by (job_name) (increase(http_requests_total[1m]))`.

    Parameters
    ----------
    query : its value at the end of a minute is that minute's requests.
    minutes : how far back, counted from the last complete minute before `end_s` (now, if None).
    label : which label names the job; None where the series have one label only.
    token_path : a file with a bearer token; no redirection gets it.

    Returns
    -------
    names (jobs,), sorted, and counts (jobs, minutes), oldest first, NaN where the server knows nothing.
    """
    check_address(url)
    if not 1 <= minutes <= MOST_POINTS:
        raise ValueError(f"minutes={minutes} must lie in 1..{MOST_POINTS}, as much as Prometheus returns of a series")
    last_s = (time.time() if end_s is None else end_s) // MINUTE_S * MINUTE_S
    first_s = last_s - (minutes - 1) * MINUTE_S
    series = _ask(url, query, first_s, last_s, token_file(token_path), timeout_s)
    if not series:
        raise ValueError(f"{url}: query {query!r} has no series in the last {minutes} minutes")
    counts = np.full((len(series), minutes), np.nan)
    names = [_name(one["metric"], label, query) for one in series]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"query {query!r}: several series are of job {twice!r}; sum by (...) the label that names it")
    for row, one in zip(counts, series):
        for when_s, value in one["values"]:
            row[round((float(when_s) - first_s) / MINUTE_S)] = float(value)
    if (counts < 0).any():
        raise ValueError(f"query {query!r}: negative counts; increase(...[1m]) counts requests")
    order = np.argsort(names)
    return tuple(np.array(names)[order].tolist()), counts[order]


def _name(labels: dict[str, str], label: str | None, query: str) -> str:
    named = {key: value for key, value in labels.items() if key != "__name__"}
    if label is None and len(named) == 1:
        return next(iter(named.values()))
    if label in named:
        return named[label]
    given = ", ".join(sorted(named)) or "none"
    raise ValueError(f"query {query!r}: label={label!r} does not name the job; its series have the labels: {given}")


def token_file(path: str | None) -> Path | None:
    """The file of a bearer token, which must be there; None without."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise ValueError(f"prometheus_token={path}: no such file; it must hold a bearer token")
    return Path(path)


def _ask(url: str, query: str, first_s: float, last_s: float, token: Path | None, timeout_s: float) -> list[dict]:
    span = dict(query=query, start=f"{first_s:.3f}", end=f"{last_s:.3f}", step=f"{MINUTE_S:g}")
    request = Request(f"{url.rstrip('/')}/api/v1/query_range?{urlencode(span)}")
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token.read_text().strip()}")
    try:
        with urlopen(request, timeout=timeout_s) as answer:
            told = json.load(answer)["data"]
    except HTTPError as error:
        raise ValueError(f"{url}: query {query!r} was refused: {_said(error)}") from None
    except (URLError, TimeoutError) as error:
        raise ConnectionError(f"{url}: no answer from Prometheus ({getattr(error, 'reason', error)})") from None
    except (ValueError, KeyError):
        raise ValueError(f"{url}: this is no Prometheus: its answer is not what /api/v1/query_range gives") from None
    return told["result"]


def _said(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError):
        return f"HTTP {error.code}"
