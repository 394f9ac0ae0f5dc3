"""Load and latency by Prometheus queries: what plain Deployments are observed by. What is missing is NaN, never zero."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np

from faro_lib.config import nearest
from faro_lib.policies.base import HISTORY_MIN
from faro_lib.workload.jobs import MINUTE_S

WINDOW_S = 30.0  # of the mean latency that policies see
SHORTEST_S = 20.0  # of the minute that goes on, before its count says anything
WINDOW = "$window"


@dataclass(frozen=True, slots=True)
class Queries:
    """PromQL of one job; each answers with one number. `$window` stands for the time that it looks back.

    Attributes
    ----------
    requests : arrivals in the window, e.g. sum(increase(http_requests_total{service="a"}[$window])).
    latency_mean_s : mean time of the requests that ended in the window.
    latency_s : the job's percentile of latency over the window; "" if nobody knows.
    queue : requests inside, waiting or in service; "" if nobody knows.
    """

    requests: str
    latency_mean_s: str
    latency_s: str = ""
    queue: str = ""

    @classmethod
    def of(cls, job: str, said: dict) -> Queries:
        """From the job's `deployment` section."""
        for key in said:
            if key not in cls.__slots__:
                raise ValueError(f"job {job!r}: deployment.queries.{key} is unknown; {nearest(key, cls.__slots__)}")
        for key in ("requests", "latency_mean_s"):
            if not said.get(key):
                raise ValueError(f"job {job!r}: deployment.queries.{key} is missing; a PromQL query with {WINDOW}")
            if WINDOW not in said[key]:
                raise ValueError(f"job {job!r}: deployment.queries.{key}={said[key]!r} must look back by {WINDOW}")
        return cls(**said)


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured; arrays (jobs,) and arrivals (jobs, minutes), newest last. NaN = missing."""

    arrivals_per_min: np.ndarray
    arrivals_now: np.ndarray
    mean_latency_s: np.ndarray
    p99_s: np.ndarray
    queue: np.ndarray


class Prometheus:
    """The HTTP API of a Prometheus server.

    Parameters
    ----------
    url : without /api/v1.
    token_path : a file with a bearer token, read at every request, so that the token may rotate.
    """

    def __init__(self, url: str, token_path: str | None = None, timeout_s: float = 5.0, threads: int = 16):
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"prometheus={url!r} must be an http:// or https:// address")
        self.url, self._token_path, self._timeout_s = url.rstrip("/"), token_path, timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prometheus")

    def observe(
        self, queries: list[Queries], minute_ends_s: np.ndarray, now_s: float, minute_s: float = MINUTE_S
    ) -> Load:
        """Load and latency of every job.

        Parameters
        ----------
        minute_ends_s : unix times of the ends of the complete minutes, oldest first, `HISTORY_MIN` at most.
        now_s : unix time.
        minute_s : seconds of a minute, where the clock of the trace runs faster.
        """
        ends = np.asarray(minute_ends_s, float)[-HISTORY_MIN:]
        since_s = now_s - ends[-1] if len(ends) else 0.0

        def history(query):
            return self.series(_within(query.requests, minute_s), ends) if len(ends) else np.empty(0)

        def current(query):
            return (
                self.value(_within(query.requests, since_s), now_s)
                if since_s >= SHORTEST_S * minute_s / MINUTE_S
                else math.nan
            )

        def percentile(query):
            if not query.latency_s or not len(ends):
                return math.nan
            return self.value(_within(query.latency_s, minute_s), ends[-1])

        asked = {
            "arrivals_per_min": history,
            "arrivals_now": current,
            "mean_latency_s": lambda query: self.value(
                _within(query.latency_mean_s, WINDOW_S * minute_s / MINUTE_S), now_s, idle=0.0
            ),
            "p99_s": percentile,
            "queue": lambda query: (
                self.value(_within(query.queue, WINDOW_S * minute_s / MINUTE_S), now_s) if query.queue else math.nan
            ),
        }
        answers = {name: [self._threads.submit(ask, query) for query in queries] for name, ask in asked.items()}
        found = {name: np.array([_or_missing(one, len(ends), name) for one in some]) for name, some in answers.items()}
        found["arrivals_per_min"] = found["arrivals_per_min"].reshape(len(queries), len(ends))
        return Load(**found)

    def value(self, query: str, at_s: float, idle: float = math.nan) -> float:
        """The number that a query has at a time: NaN if there is none, `idle` if it is 0/0 for want of requests."""
        result = self._ask("query", query=query, time=f"{at_s:.3f}")
        if result["resultType"] == "scalar":
            return float(result["result"][1])
        if not _only(query, result["result"]):
            return math.nan
        value = float(result["result"][0]["value"][1])
        return idle if math.isnan(value) else value

    def series(self, query: str, at_s: np.ndarray) -> np.ndarray:
        """The numbers that a query has at evenly spaced times; NaN where it has none."""
        step_s = at_s[1] - at_s[0] if len(at_s) > 1 else MINUTE_S
        span = dict(start=f"{at_s[0]:.3f}", end=f"{at_s[-1]:.3f}", step=f"{step_s:g}")
        result = self._ask("query_range", query=query, **span)["result"]
        values = np.full(len(at_s), np.nan)
        if _only(query, result):
            for when_s, value in result[0]["values"]:
                values[round((float(when_s) - at_s[0]) / step_s)] = float(value)
        return values

    def _ask(self, how: str, **parameters) -> dict:
        request = Request(f"{self.url}/api/v1/{how}?{urlencode(parameters)}")
        if self._token_path:
            request.add_header("Authorization", f"Bearer {Path(self._token_path).read_text().strip()}")
        with urlopen(request, timeout=self._timeout_s) as answer:
            return json.load(answer)["data"]


def _within(query: str, window_s: float) -> str:
    return query.replace(WINDOW, f"{window_s:.0f}s")


def _only(query: str, result: list) -> bool:
    """Whether there is an answer; several are the operator's mistake."""
    if len(result) > 1:
        raise ValueError(f"query {query!r} has {len(result)} answers; one is needed: sum(...)")
    return bool(result)


def _or_missing(answer, minutes: int, name: str):
    """What was answered; an unreachable server, or one that answers nonsense, leaves a job's data missing."""
    try:
        return answer.result()
    except (OSError, KeyError, IndexError, TypeError, json.JSONDecodeError):
        return np.full(minutes, np.nan) if name == "arrivals_per_min" else math.nan
