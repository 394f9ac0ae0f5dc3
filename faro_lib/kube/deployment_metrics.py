"""Load and latency by Prometheus queries: what plain Deployments are observed by. What is missing is NaN, never zero."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import urllib3

from faro_lib.errors import nearest
from faro_lib.policies.protocol import HISTORY_MINUTES
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.prometheus import check_address, token_file

LOG = logging.getLogger(__name__)
WINDOW_S = 30.0  # of the mean latency that policies see
SHORTEST_S = 20.0  # of the minute that goes on, before its count says anything
WINDOW = "$window"
AT_ONCE = 50  # queries in one request
MARK = "faro_query"  # the label that says which of them an answer is to


@dataclass(frozen=True, slots=True)
class Queries:
    """PromQL of one job; each is a vector of one number. `$window` stands for the time that it looks back.

    Attributes
    ----------
    requests : arrivals in the window, e.g. sum(increase(http_requests_total{service="a"}[$window])).
    latency_mean_s : mean time of the requests that ended in the window.
    latency_s : the job's percentile of latency over the window; "" if nobody knows.
    ongoing : requests inside, waiting or in service; "" if nobody knows.
    """

    requests: str
    latency_mean_s: str
    latency_s: str = ""
    ongoing: str = ""

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
    tail_latency_s: np.ndarray
    ongoing: np.ndarray


class DeploymentMetrics:
    """The HTTP API of a Prometheus server.

    Parameters
    ----------
    url : without /api/v1.
    token_path : a file with a bearer token, read at every request, so that the token may rotate.
    """

    def __init__(self, url: str, token_path: str | None = None, timeout_s: float = 5.0, threads: int = 4):
        check_address(url)
        self.url, self._token, self._timeout_s = url.rstrip("/"), token_file(token_path), timeout_s
        self.error: str | None = None  # why the last request was not answered
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prometheus")
        self._http = urllib3.PoolManager(maxsize=threads)

    def observe(
        self, queries: list[Queries], minute_ends_s: np.ndarray, now_s: float, minute_s: float = MINUTE_S
    ) -> Load:
        """Load and latency of every job.

        Parameters
        ----------
        minute_ends_s : unix times of the ends of the complete minutes, oldest first, `HISTORY_MINUTES` at most.
        now_s : unix time.
        minute_s : seconds of a minute, where the clock of the trace runs faster.
        """
        ends = np.asarray(minute_ends_s, float)[-HISTORY_MINUTES:]
        since_s, pace = now_s - ends[-1] if len(ends) else 0.0, minute_s / MINUTE_S
        window_s, jobs = WINDOW_S * pace, len(queries)

        def asked(field: str, window_s: float) -> list[str]:
            return [getattr(query, field).replace(WINDOW, f"{window_s:.0f}s") for query in queries]

        def at(field: str, window_s: float, when_s: float) -> np.ndarray:
            return self.values(asked(field, window_s), np.array([when_s]))[:, 0]

        missing = np.full(jobs, np.nan)
        mean_s = at("latency_mean_s", window_s, now_s)
        return Load(
            arrivals_per_min=self.values(asked("requests", minute_s), ends),
            arrivals_now=at("requests", since_s, now_s) if since_s >= SHORTEST_S * pace else missing,
            mean_latency_s=np.where(np.isinf(mean_s), 0.0, mean_s),  # of no requests
            tail_latency_s=_finite(at("latency_s", minute_s, ends[-1])) if len(ends) else missing,
            ongoing=_finite(at("ongoing", window_s, now_s)),
        )

    def values(self, queries: list[str], at_s: np.ndarray) -> np.ndarray:
        """The numbers that queries have at evenly spaced instants, (queries, instants); NaN where there is none, inf for 0/0.

        Raises
        ------
        ValueError : a query is not PromQL, or has several answers; that is the operator's mistake.
        """
        found = np.full((len(queries), len(at_s)), np.nan)
        if not len(at_s):
            return found
        some = [i for i, query in enumerate(queries) if query]
        chunks = [some[first : first + AT_ONCE] for first in range(0, len(some), AT_ONCE)]
        for chunk, answer in zip(chunks, self._threads.map(lambda one: self._chunk(queries, one, at_s), chunks)):
            found[chunk] = answer
        return found

    def _chunk(self, queries: list[str], chunk: list[int], at_s: np.ndarray) -> np.ndarray:
        """Some of them by one request, each marked with its place."""
        marked = (f'label_replace({queries[i]}, "{MARK}", "{place}", "", "")' for place, i in enumerate(chunk))
        step_s = at_s[1] - at_s[0] if len(at_s) > 1 else MINUTE_S
        span = dict(start=f"{at_s[0]:.3f}", end=f"{at_s[-1]:.3f}", step=f"{step_s:g}")
        found = np.full((len(chunk), len(at_s)), np.nan)
        try:
            result = self._ask(query=" or ".join(marked), **span)
            told = [(int(one["metric"][MARK]), one["values"]) for one in result]
        except BadQuery as bad:
            if len(chunk) > 1:  # whose fault is it?
                return np.vstack([self._chunk(queries, [i], at_s) for i in chunk])
            raise ValueError(f"query {queries[chunk[0]]!r}: {bad}") from None
        except (OSError, urllib3.exceptions.HTTPError, KeyError, TypeError, ValueError) as error:
            self._miss(f"{type(error).__name__}: {getattr(error, 'reason', None) or error}")
            return found  # not reached, or nonsense: missing
        self.error = None
        for place, values in told:
            if sum(one == place for one, _ in told) > 1:
                raise ValueError(f"query {queries[chunk[place]]!r} has several answers; one is needed: sum(...)")
            for when_s, value in values:
                number = float(value)
                found[place, round((float(when_s) - at_s[0]) / step_s)] = np.inf if np.isnan(number) else number
        return found

    def _miss(self, why: str) -> None:
        """Said once for as long as it lasts: counts that are missing look the same whether nobody asked or nobody answers."""
        if self.error is None:
            LOG.warning("%s does not answer, what it would tell is missing: %s", self.url, " ".join(why.split()))
        self.error = why

    def _ask(self, **parameters) -> list[dict]:
        headers = {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token.read_text().strip()}"
        body: dict[str, Any] = {"fields": parameters, "encode_multipart": False, "headers": headers}
        answer = self._http.request(
            "POST", f"{self.url}/api/v1/query_range", timeout=self._timeout_s, retries=0, **body
        )
        if answer.status in (400, 422):
            raise BadQuery(answer.json().get("error", answer.status))
        if answer.status != 200:
            raise OSError(f"{self.url}: status {answer.status}")
        return answer.json()["data"]["result"]


class BadQuery(ValueError):
    """Prometheus does not understand it."""


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(values), np.nan, values)
