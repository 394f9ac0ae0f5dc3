"""Load and latency of Deployments, from Prometheus. A missing value is NaN, never zero."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from faro_lib.errors import nearest
from faro_lib.protocol import HISTORY_MINUTES, LATENCY_WINDOW_S
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.prometheus import BadQuery, Prometheus

LOG = logging.getLogger(__name__)
# If less of the current minute has passed, there are too few scrapes to count its requests.
MIN_PARTIAL_MINUTE_S = 20.0
WINDOW = "$window"
BATCH = 50  # queries in one request
THREADS = 4
MARK = "faro_query"  # label added to each series: the index of the series' query in its batch


@dataclass(frozen=True, slots=True)
class Queries:
    """The PromQL queries of one job; each returns one number. `$window` stands for its range."""

    # Arrivals in the window, such as sum(increase(http_requests_total{service="a"}[$window])).
    requests: str
    latency_mean_s: str  # mean latency of the requests that ended in the window
    latency_s: str = ""  # the job's latency quantile over the window; "" if it is not measured
    ongoing: str = ""  # requests waiting or in service; "" if they are not measured

    @classmethod
    def of(cls, job: str, section: dict[str, str]) -> Self:
        """Parse a job's `deployment.queries`.

        ValueError for an unknown key, or a missing or invalid required query.
        """
        place = f"job {job!r}: deployment.queries"
        for key in section:
            if key not in cls.__slots__:
                raise ValueError(f"{place}.{key} is unknown; {nearest(key, cls.__slots__)}")
        for key in ("requests", "latency_mean_s"):
            query = section.get(key)
            if not query:
                raise ValueError(f"{place}.{key} is missing; a PromQL query with {WINDOW}")
            if WINDOW not in query:
                raise ValueError(f"{place}.{key}={query!r} must look back by {WINDOW}")
        return cls(**section)


class DeploymentMetrics:
    """Measures the load and latency of jobs by Prometheus queries.

    `token_path` is a file with a bearer token.
    """

    def __init__(self, url: str, token_path: str | None = None, timeout_s: float = 5.0):
        self._prometheus = Prometheus(url, token_path, timeout_s)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        # Why data of the last observation is missing; None if it is complete.
        self.error: str | None = None

    def observe(
        self,
        queries: list[Queries],
        minute_ends_s: np.ndarray,
        now_s: float,
        minute_s: float = MINUTE_S,
    ) -> dict[str, Any]:
        """The load and latency of every job, as fields of an `Observation`.

        queries : one entry per job.
        minute_ends_s : Unix times at which past minutes ended, oldest first; only the last
            HISTORY_MINUTES are used.
        now_s : Unix time of the observation.
        minute_s : wall-clock seconds that one minute of the load takes; below 60 if a recorded load
            is replayed faster.
        """
        ends = np.asarray(minute_ends_s, float)[-HISTORY_MINUTES:]  # (minutes,)
        since_s = now_s - ends[-1] if len(ends) else 0.0  # so much of the current minute has passed
        pace = minute_s / MINUTE_S
        window_s = LATENCY_WINDOW_S * pace
        before = self.error
        self.error = None

        def over_time(field: str, window_s: float, times_s: np.ndarray) -> np.ndarray:
            """Results (jobs, times) of the query `field` of each job."""
            window = f"{window_s:.0f}s"
            asked = [getattr(one, field).replace(WINDOW, window) for one in queries]
            return self.values(asked, times_s)

        def at(field: str, window_s: float, time_s: float, undefined: float) -> np.ndarray:
            """Results (jobs,) at one time, with `undefined` for a result that is not finite."""
            results = over_time(field, window_s, np.array([time_s]))[:, 0]
            return np.where(np.isinf(results), undefined, results)

        arrivals_per_min = over_time("requests", minute_s, ends)  # (jobs, minutes)

        arrivals_now = None
        if since_s >= MIN_PARTIAL_MINUTE_S * pace:
            counted = at("requests", since_s, now_s, undefined=np.inf)
            arrivals_now = None if np.isnan(counted).all() else counted

        # If no request ended, the mean latency is 0.
        mean_latency_s = at("latency_mean_s", window_s, now_s, undefined=0.0) / pace

        tail_latency_s = np.full(len(queries), np.nan)
        if len(ends):
            tail_latency_s = at("latency_s", minute_s, ends[-1], undefined=np.nan) / pace

        ongoing = at("ongoing", window_s, now_s, undefined=np.nan)

        if self.error and before is None:  # one warning per outage
            error = " ".join(self.error.split())
            LOG.warning("%s: data is missing: %s", self._prometheus.url, error)
        return {
            "arrivals_per_min": arrivals_per_min,
            "arrivals_now": arrivals_now,
            "mean_latency_s": mean_latency_s,
            "tail_latency_s": tail_latency_s,
            "ongoing": ongoing,
        }

    def values(self, queries: list[str], times_s: np.ndarray) -> np.ndarray:
        """The results (queries, times) of the queries at evenly spaced Unix times.

        A result that is not finite, such as 0/0, becomes inf. A result is NaN if it is missing, or
        if the query is empty, is invalid or returns several series.
        """
        values = np.full((len(queries), len(times_s)), np.nan)
        if not len(times_s):
            return values
        asked = [i for i, query in enumerate(queries) if query]
        batches = [asked[first : first + BATCH] for first in range(0, len(asked), BATCH)]

        def answer_to(batch: list[int]) -> np.ndarray:
            return self._batch([queries[i] for i in batch], times_s)

        for batch, answer in zip(batches, self._threads.map(answer_to, batches)):
            values[batch] = answer
        return values

    def _batch(self, queries: list[str], times_s: np.ndarray) -> np.ndarray:
        """Results (queries, times) of one request that joins the queries by `or`.

        The label MARK tells the queries' series apart.
        """
        values = np.full((len(queries), len(times_s)), np.nan)
        marked = [
            f'label_replace({query}, "{MARK}", "{i}", "", "")' for i, query in enumerate(queries)
        ]
        try:
            series = self._prometheus.query_range(" or ".join(marked), times_s)
            numbers = [int(labels[MARK]) for labels, _ in series]  # index of each series' query
        except BadQuery as error:
            if len(queries) > 1:  # send them one by one, to find out which query is wrong
                return np.vstack([self._batch([query], times_s) for query in queries])
            self._missing(f"query {queries[0]!r}: {error}")
            return values
        except (OSError, KeyError, ValueError) as error:
            self._missing(str(error) or type(error).__name__)
            return values
        for i, (_, row) in zip(numbers, series):
            if numbers.count(i) == 1:
                values[i] = row
        for i in sorted(set(numbers)):
            if numbers.count(i) > 1:
                self._missing(f"query {queries[i]!r} has several answers; one is needed: sum(...)")
        return values

    def _missing(self, reason: str) -> None:
        """Note why data is missing; the first reason of an observation is kept."""
        self.error = self.error or reason
