"""Load and latency of Deployments, measured by Prometheus queries. A missing value is NaN, never zero."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from faro_lib.errors import nearest
from faro_lib.policies.protocol import HISTORY_MINUTES, LATENCY_WINDOW_S
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.prometheus import BadQuery, Prometheus

LOG = logging.getLogger(__name__)
MIN_PARTIAL_MINUTE_S = 20.0  # if less of the current minute has passed, there are too few scrapes to count its requests
WINDOW = "$window"
BATCH = 50  # queries in one request
THREADS = 4
MARK = "faro_query"  # label added to each series of a query; its value is the index of the query in its batch


@dataclass(frozen=True, slots=True)
class Queries:
    """The PromQL queries of one job; each returns one number. `$window` stands for the look-back range of the query."""

    requests: str  # arrivals in the window, such as sum(increase(http_requests_total{service="a"}[$window]))
    latency_mean_s: str  # mean latency of the requests that ended in the window
    latency_s: str = ""  # the job's latency quantile over the window; "" if it is not measured
    ongoing: str = ""  # requests waiting or in service; "" if they are not measured

    @classmethod
    def of(cls, job: str, section: dict[str, str]) -> Self:
        """Parse a job's `deployment.queries`; ValueError for an unknown key, or a missing or invalid required query."""
        for key in section:
            if key not in cls.__slots__:
                raise ValueError(
                    f"job {job!r}: deployment.queries.{key} is unknown; {nearest(key, cls.__slots__)}"
                )
        for key in ("requests", "latency_mean_s"):
            if not section.get(key):
                raise ValueError(
                    f"job {job!r}: deployment.queries.{key} is missing; a PromQL query with {WINDOW}"
                )
            if WINDOW not in section[key]:
                raise ValueError(
                    f"job {job!r}: deployment.queries.{key}={section[key]!r} must look back by {WINDOW}"
                )
        return cls(**section)


class DeploymentMetrics:
    """Measures the load and latency of jobs by Prometheus queries. `token_path` is a file with a bearer token."""

    def __init__(self, url: str, token_path: str | None = None, timeout_s: float = 5.0):
        self._prometheus = Prometheus(url, token_path, timeout_s)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        self.error: str | None = (
            None  # why data of the last observation is missing; None if complete
        )

    def observe(
        self,
        queries: list[Queries],
        minute_ends_s: np.ndarray,
        now_s: float,
        minute_s: float = MINUTE_S,
    ) -> dict[str, Any]:
        """Return the load and latency of every job, as fields of an `Observation`; `queries` has one entry per job.

        minute_ends_s : Unix times at which past minutes ended, oldest first; only the last HISTORY_MINUTES are used.
        now_s : Unix time of the observation.
        minute_s : wall-clock seconds that one minute of the load takes; below 60 if a recorded load is replayed faster.
        """
        ends = np.asarray(minute_ends_s, float)[-HISTORY_MINUTES:]
        since_s, pace = now_s - ends[-1] if len(ends) else 0.0, minute_s / MINUTE_S
        window_s, missing = LATENCY_WINDOW_S * pace, np.full(len(queries), np.nan)
        before, self.error = self.error, None

        def values(field: str, window_s: float, times_s: np.ndarray) -> np.ndarray:
            return self.values(
                [getattr(one, field).replace(WINDOW, f"{window_s:.0f}s") for one in queries],
                times_s,
            )

        def value(
            field: str, window_s: float, time_s: float, undefined: float = np.inf
        ) -> np.ndarray:
            one = values(field, window_s, np.array([time_s]))[:, 0]
            return np.where(np.isinf(one), undefined, one)

        load: dict[str, Any] = {
            "arrivals_per_min": values("requests", minute_s, ends),
            "arrivals_now": value("requests", since_s, now_s)
            if since_s >= MIN_PARTIAL_MINUTE_S * pace
            else missing,
            "mean_latency_s": value("latency_mean_s", window_s, now_s, undefined=0.0)
            / pace,  # 0 if no request ended
            "tail_latency_s": value("latency_s", minute_s, ends[-1], undefined=np.nan) / pace
            if len(ends)
            else missing,
            "ongoing": value("ongoing", window_s, now_s, undefined=np.nan),
        }
        if np.isnan(load["arrivals_now"]).all():
            load["arrivals_now"] = None
        if self.error and before is None:  # one warning per outage
            LOG.warning(
                "%s: data is missing: %s", self._prometheus.url, " ".join(self.error.split())
            )
        return load

    def values(self, queries: list[str], times_s: np.ndarray) -> np.ndarray:
        """Return the results of the queries at evenly spaced Unix times, as an array (queries, times).

        A result that is not finite, such as 0/0, becomes inf. A result is NaN if it is missing, or if the query is
        empty, is invalid or returns several series.
        """
        values = np.full((len(queries), len(times_s)), np.nan)
        if len(times_s):
            asked = [i for i, query in enumerate(queries) if query]
            batches = [asked[first : first + BATCH] for first in range(0, len(asked), BATCH)]
            answers = self._threads.map(
                lambda batch: self._batch([queries[i] for i in batch], times_s), batches
            )
            for batch, answer in zip(batches, answers):
                values[batch] = answer
        return values

    def _batch(self, queries: list[str], times_s: np.ndarray) -> np.ndarray:
        """Results (queries, instants) of one request that joins the queries by `or`; the label MARK tells them apart."""
        marked = (
            f'label_replace({query}, "{MARK}", "{i}", "", "")' for i, query in enumerate(queries)
        )
        values = np.full((len(queries), len(times_s)), np.nan)
        try:
            series = self._prometheus.query_range(" or ".join(marked), times_s)
            numbers = [int(labels[MARK]) for labels, _ in series]
        except BadQuery as error:
            if len(queries) > 1:  # send them one by one, to find out which query is wrong
                return np.vstack([self._batch([query], times_s) for query in queries])
            self.error = self.error or f"query {queries[0]!r}: {error}"
            return values
        except (OSError, KeyError, ValueError) as error:
            self.error = self.error or str(error) or type(error).__name__
            return values
        for i, (_, row) in zip(numbers, series):
            values[i] = row if numbers.count(i) == 1 else np.nan
        for i in sorted({i for i in numbers if numbers.count(i) > 1}):
            self.error = (
                self.error or f"query {queries[i]!r} has several answers; one is needed: sum(...)"
            )
        return values
