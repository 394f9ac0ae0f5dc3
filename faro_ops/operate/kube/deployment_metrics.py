"""Load and latency of Deployments, from Prometheus. A missing value is NaN, never zero.

A value that cannot be right, such as a negative count, is missing, too. What is wrong with the
queries of one job is reported to the board of job states, and the other jobs keep their data.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, Field

from faro_lib.protocol import HISTORY_MINUTES, LATENCY_WINDOW_S
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.operate.job_states import MISSING, JobStates
from faro_ops.operate.kube.query_batches import BUDGET_S, Answer, QueryBatches, Question
from faro_ops.prometheus import Prometheus
from faro_ops.section import Section, parsed

LOG = logging.getLogger(__name__)
# If less of the current minute has passed, there are too few scrapes to count its requests.
MIN_PARTIAL_MINUTE_S = 20.0
WINDOW = "$window"
ACCEPTED = f"a PromQL query with {WINDOW}"
OF_BOTH = ("first_token_s", "per_token_s")  # queries that a job with an SLO on both must have, too
SOURCE = "metrics"  # of reports to the board of job states
# Measurements of a job.
COUNTS = "requests by minute"
COUNT_NOW = "requests of this minute"
FAILED = "failed requests"
REFUSED = "refused requests"
CANCELLED = "cancelled requests"
THROTTLED = "share of throttled time"
BUSY = "busy time of a request"
MEAN = "mean latency"
TAIL = "latency quantile"
FIRST_TOKEN = "time to the first token"
PER_TOKEN = "time per output token"
MET_SLO = "requests that met the SLO"
ONGOING = "ongoing requests"
NEEDED = (COUNTS, MEAN)  # without one of them, the job's data is missing
# A value of 0/0 or infinity is unknown; of other measurements, it cannot be right.
UNKNOWN_IF_UNDEFINED = (TAIL, FIRST_TOKEN, PER_TOKEN, MET_SLO, THROTTLED, BUSY, ONGOING)


def _looks_back(query: str) -> str:
    if WINDOW not in query:
        raise ValueError(f"must look back by {WINDOW}")
    return query


Needed = Annotated[str, AfterValidator(_looks_back), Field(description=ACCEPTED)]


class QueriesSection(Section, strict=True):
    """The section `deployment.queries` of a job: PromQL queries, each of which returns one number.

    `$window` stands for the range of a query. What has no query is unknown, and not 0.
    """

    # Arrivals in the window, such as sum(increase(http_requests_total{service="a"}[$window])).
    requests: Needed
    latency_mean_s: Needed  # mean latency of the requests that ended in the window
    latency_s: str | None = None  # the job's latency quantile over the window
    ongoing: str | None = None  # requests waiting or in service
    # The job's quantiles of the time to the first token and of that per later token.
    first_token_s: str | None = None
    per_token_s: str | None = None
    met_slo: str | None = None  # requests of the window that met the job's SLO, or both its limits
    # Requests of the window that failed, that the replicas refused, and whose client gave up.
    failed: str | None = None
    refused: str | None = None
    cancelled: str | None = None
    throttled: str | None = None  # share of the window in which CPU limits slowed the replicas
    busy_s: str | None = None  # mean time in the window for which a request kept a replica busy


class Queries(QueriesSection):
    """The queries of one job, and what of the job their answers depend on."""

    job: str = ""  # the job's name
    # If > 0, the SLO limits both, and the weight is that of `workload.replicas.Continuous`.
    per_token_weight: float = 0.0

    @classmethod
    def of(cls, job: str, section: dict[str, Any], per_token_weight: float = 0.0) -> Self:
        """Parse a job's `deployment.queries`.

        per_token_weight : of an SLO on both latencies; 0 for others.

        ValueError for an unknown key, or a missing or invalid required query.
        """
        place, name = f"job {job!r}", "deployment.queries"
        given = parsed(QueriesSection, section, place, name)
        if per_token_weight and not given.latency_s:
            for key in OF_BOTH:
                query = getattr(given, key)
                if not query:
                    raise ValueError(f"{place}: {name}.{key} is missing; {ACCEPTED}")
                if WINDOW not in query:
                    raise ValueError(f"{place}: {name}.{key}={query!r} must look back by {WINDOW}")
        return cls(**dict(given), job=job, per_token_weight=per_token_weight)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one query of every job measures, at some times."""

    name: str  # of the measurement
    field: str  # of `Queries`
    window_s: float
    times_s: tuple[float, ...]

    def question(self, job: int, query: str) -> Question:
        window = f"{self.window_s:.0f}s"
        return Question((self.name, job), query.replace(WINDOW, window), self.times_s)


class DeploymentMetrics:
    """Measures the load and latency of jobs by Prometheus queries.

    token_path : file with a bearer token.
    timeout_s : longest time of one request.
    states : board on which jobs whose data is missing are reported.
    budget_s : longest time of an observation.
    """

    def __init__(
        self,
        url: str,
        token_path: str | None = None,
        timeout_s: float = 5.0,
        states: JobStates | None = None,
        budget_s: float = BUDGET_S,
    ):
        self._prometheus = Prometheus(url, token_path, timeout_s)
        self._batches = QueryBatches(self._prometheus, timeout_s, budget_s)
        self._states = states or JobStates()
        # Why data of the last observation is missing; None if no query failed.
        self.error: str | None = None

    def observe(
        self,
        queries: Sequence[Queries],
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
        all_ends, last_end = tuple(ends.tolist()), tuple(ends[-1:].tolist())
        # The times of the minute that has begun; none if too little of it has passed.
        begun = (now_s,) if since_s >= MIN_PARTIAL_MINUTE_S * pace else ()
        found = self._measured(
            queries,
            Measurement(COUNTS, "requests", minute_s, all_ends),
            Measurement(COUNT_NOW, "requests", since_s, begun),
            Measurement(MEAN, "latency_mean_s", window_s, (now_s,)),
            Measurement(TAIL, "latency_s", minute_s, last_end),
            Measurement(FIRST_TOKEN, "first_token_s", minute_s, last_end),
            Measurement(PER_TOKEN, "per_token_s", minute_s, last_end),
            Measurement(MET_SLO, "met_slo", minute_s, last_end),
            Measurement(FAILED, "failed", minute_s, last_end),
            Measurement(REFUSED, "refused", minute_s, last_end),
            Measurement(CANCELLED, "cancelled", minute_s, last_end),
            Measurement(THROTTLED, "throttled", minute_s, last_end),
            Measurement(BUSY, "busy_s", minute_s, last_end),
            Measurement(ONGOING, "ongoing", window_s, (now_s,)),
        )
        now = last(found[COUNT_NOW])  # (jobs,)
        first_token_s, per_token_s = (last(found[name]) / pace for name in (FIRST_TOKEN, PER_TOKEN))
        weight = np.array([one.per_token_weight for one in queries])
        both_s = np.maximum(first_token_s, weight * per_token_s)  # NaN if either is
        tail_s = last(found[TAIL]) / pace
        stated = np.array([bool(one.latency_s) for one in queries])
        return {
            "arrivals_per_min": found[COUNTS],
            "arrivals_now": None if np.isnan(now).all() else now,
            "mean_latency_s": last(found[MEAN]) / pace,
            # A histogram of the worse latency of each request is better than two of one latency.
            "tail_latency_s": np.where((weight > 0) & ~stated, both_s, tail_s),
            "ongoing": last(found[ONGOING]),
            "first_token_s": first_token_s,
            "per_token_s": per_token_s,
            "goodput_rps": last(found[MET_SLO]) / MINUTE_S,
            **ended_per_min(found),
            "throttled": known(last(found[THROTTLED])),
            "busy_s": known(last(found[BUSY]) / pace),
        }

    def _measured(
        self, queries: Sequence[Queries], *measurements: Measurement
    ) -> dict[str, np.ndarray]:
        """Name of a measurement -> its results (jobs, times); reports and logs what is missing."""
        questions = [
            one.question(job, getattr(of_job, one.field))
            for one in measurements
            for job, of_job in enumerate(queries)
            if one.times_s and getattr(of_job, one.field)
        ]
        answers = self._batches.ask(questions)

        before, self.error = self.error, None
        reasons: dict[str, str] = {}  # job -> the first reason why its data is missing
        found: dict[str, np.ndarray] = {}
        for one in measurements:
            found[one.name] = values = np.full((len(queries), len(one.times_s)), np.nan)
            for job, of_job in enumerate(queries):
                answer = answers.get((one.name, job))
                if answer is None:  # it was not asked
                    continue
                values[job], problem = plausible(answer, one.name)
                query = f"query {getattr(of_job, one.field)!r}"
                if problem:
                    self.error = self.error or query + problem
                elif one.name in NEEDED and np.isnan(values[job, -1]):
                    problem = " has no answer"
                if problem:
                    reasons.setdefault(of_job.job, query + problem)
        self._states.report_all(MISSING, reasons, by=SOURCE)
        if self.error and before is None:  # one warning per outage
            error = " ".join(self.error.split())
            LOG.warning("%s: data is missing: %s", self._prometheus.url, error)
        return found


def last(values: np.ndarray) -> np.ndarray:
    """The last column (jobs,) of `values` (jobs, times); NaN if there are no times."""
    return values[:, -1] if values.shape[1] else np.full(len(values), np.nan)


def known(values: np.ndarray) -> np.ndarray | None:
    """`values` (jobs,), or None if they are unknown of all jobs."""
    return None if np.isnan(values).all() else values


def ended_per_min(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | None]:
    """Requests of the last minute by how they ended, as fields of an `Observation`.

    The number of served requests is known where all the others are counted. Ongoing requests of
    now may have arrived in the minute, so they do not count as served.
    """
    arrived = last(found[COUNTS]) - last(found[ONGOING])
    failed, refused, cancelled = (last(found[name]) for name in (FAILED, REFUSED, CANCELLED))
    return {
        "served_per_min": known(np.maximum(arrived - failed - refused - cancelled, 0)),
        "failed_per_min": known(failed),
        "refused_per_min": known(refused),
        "cancelled_per_min": known(cancelled),
    }


def plausible(answer: Answer, name: str) -> tuple[np.ndarray, str]:
    """(values, problem): the values (times,) with NaN where they cannot be right.

    The problem is that of the answer, or of its last value; "" if there is none. Latencies without
    a request are 0/0: their mean is 0, and a quantile is unknown.
    """
    values = answer.values.copy()
    undefined = np.isinf(values)  # 0/0, or infinite
    if name == MEAN:
        values[undefined] = 0.0
    elif name in UNKNOWN_IF_UNDEFINED:
        values[undefined] = np.nan
    wrong = (values < 0) | np.isinf(values)
    problem = answer.problem
    if not problem and wrong[-1:].any():
        text = "0/0 or infinity" if undefined[-1] else f"{values[-1]:g}"
        problem = f" answers {text}; expected a number >= 0"
    values[wrong] = np.nan
    return values, problem
