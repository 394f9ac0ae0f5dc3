"""Prometheus and one job's queries: impossible values, slow and wrong queries, outages."""

from __future__ import annotations

import numpy as np
import pytest
from fake_prometheus import FakePrometheus

from faro_lib.forecast import Forecaster
from faro_ops.operate.job_states import FINE, MISSING, JobState, JobStates
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics, Queries
from faro_ops.operate.kube.query_batches import BATCH, QUICK_ANSWERS, QueryBatches, Question

ENDS = np.array([880.0, 940.0, 1000.0])  # of minutes; it is 1030 now
# Fields of an observation, and the word in the query that measures them.
FIELDS = {"requests": "count_{}", "latency_mean_s": "mean_{}", "ongoing": "in_system_{}"}


def queries_of(*jobs: str) -> list[Queries]:
    return [
        Queries.of(job, {key: f"{word.format(job)}[$window]" for key, word in FIELDS.items()})
        for job in jobs
    ]


def prometheus_with(values=()) -> FakePrometheus:
    """Answers 7 to every query, except to those that contain a word of `values`."""
    return FakePrometheus(values, others=7.0)


def metrics(prometheus, states=None):
    one = DeploymentMetrics("http://127.0.0.1:9", states=states)
    one._batches = QueryBatches(prometheus, timeout_s=5.0)
    return one


def observed(prometheus, jobs=("a", "b"), states=None):
    return metrics(prometheus, states).observe(queries_of(*jobs), ENDS, 1030.0)


# --- how requests end ----------------------------------------------------------------------------

ENDED = ("served_per_min", "failed_per_min", "refused_per_min", "cancelled_per_min")


def ended(values, **queries):
    """The counts of job a, which has these queries; job b has none of them."""
    fields = {key: f"{word.format('a')}[$window]" for key, word in FIELDS.items()}
    a = Queries.of("a", fields | {name: f"{text}[$window]" for name, text in queries.items()})
    seen = metrics(prometheus_with(values)).observe([a, *queries_of("b")], ENDS, 1030.0)
    return {name: None if seen[name] is None else seen[name].tolist() for name in ENDED}


def test_failed_refused_and_cancelled_requests_are_unknown_without_their_queries():
    assert ended({}) == dict.fromkeys(ENDED)


def test_served_requests_are_known_where_all_others_are_counted_and_no_more_than_arrived():
    values = {"count_a": 100.0, "in_system_a": 4.0, "bad": 3.0, "full": 2.0, "gone": 1.0}
    counts = ended(values, failed="bad", refused="full", cancelled="gone")
    unknown = pytest.approx(np.nan, nan_ok=True)
    for name, expected in zip(ENDED, (90.0, 3.0, 2.0, 1.0)):
        assert counts[name] == [expected, unknown], name
    some = ended(values, failed="bad")
    assert some["failed_per_min"] == [3.0, unknown]
    assert some["served_per_min"] is some["refused_per_min"] is None


def test_a_share_of_throttled_time_that_is_not_defined_is_unknown():
    fields = {key: f"{word.format('a')}[$window]" for key, word in FIELDS.items()}
    job = Queries.of("a", fields | {"throttled": "cfs[$window]"})
    for value, expected in ((0.2, 0.2), (np.inf, np.nan)):
        seen = metrics(prometheus_with({"cfs": value})).observe(
            [job, *queries_of("b")], ENDS, 1030.0
        )
        throttled = seen["throttled"]
        assert (np.nan if throttled is None else throttled[0]) == pytest.approx(
            expected, nan_ok=True
        )


def test_the_busy_time_of_a_request_is_measured_where_a_query_says_how():
    fields = {key: f"{word.format('a')}[$window]" for key, word in FIELDS.items()}
    job = Queries.of("a", fields | {"busy_s": "handler[$window]"})
    for value, expected in ((0.2, 0.2), (np.inf, None)):
        prometheus = metrics(prometheus_with({"handler": value}))
        busy_s = prometheus.observe([job, *queries_of("b")], ENDS, 1030.0)["busy_s"]
        assert (None if busy_s is None else busy_s[0]) == expected


# --- impossible values ----------------------------------------------------------------------------


class Counting(Forecaster):
    def sample(self, horizon=1, n=1):
        return np.zeros((len(self.jobs), n, horizon))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(np.nan, "0/0 or infinity"), (np.inf, "0/0 or infinity"), (-0.01, "-0.01")],
)
def test_an_impossible_count_of_one_job_is_missing_data_of_that_job_alone(value, shown):
    states = JobStates(lambda: 5.0)
    seen = observed(prometheus_with({"count_a": value}), states=states)
    assert np.isnan(seen["arrivals_per_min"][0]).all()
    assert np.isnan(seen["arrivals_now"][0])
    assert (seen["arrivals_per_min"][1] == 7).all()
    for counts in seen["arrivals_per_min"].T:
        Counting(jobs=("a", "b")).checked(counts)  # the policy of all jobs accepts them
    reason = f"query 'count_a[$window]' answers {shown}; expected a number >= 0"
    assert states.of("a") == JobState(MISSING, reason, 5.0)
    assert states.of("b").state == FINE


def test_an_impossible_count_is_missing_at_its_minute_only():
    states = JobStates()
    dip = prometheus_with({"count_a": lambda when: -0.01 if when == 940 else 60})
    seen = observed(dip, states=states)
    assert np.isnan(seen["arrivals_per_min"][0]).tolist() == [False, True, False]
    assert states.of("a").state == FINE, "the last minute is known"


@pytest.mark.parametrize("field", ["mean", "in_system"])
def test_a_negative_latency_or_number_of_requests_is_missing(field):
    states = JobStates()
    seen = observed(prometheus_with({f"{field}_a": -1.0}), states=states)
    name = "mean_latency_s" if field == "mean" else "ongoing"
    assert np.isnan(seen[name][0])
    assert states.of("a").reason == f"query '{field}_a[$window]' answers -1; expected a number >= 0"


def test_the_state_of_a_job_is_fine_again_when_its_data_is_back():
    states, prometheus = JobStates(), prometheus_with({"count_a": -1})
    one = metrics(prometheus, states)
    one.observe(queries_of("a", "b"), ENDS, 1030.0)
    assert states.of("a").state == MISSING
    prometheus.values.clear()
    one.observe(queries_of("a", "b"), ENDS, 1040.0)
    assert states.troubled() == {}


def test_a_query_without_an_answer_makes_its_job_missing_and_names_itself():
    states = JobStates()

    observed(prometheus_with({"mean_a": None}), states=states)
    assert states.of("a").reason == "query 'mean_a[$window]' has no answer"
    assert states.of("b").state == FINE


# --- slow and wrong queries -----------------------------------------------------------------------

MANY = tuple(f"j{n:03d}" for n in range(200))


def known(seen) -> np.ndarray:
    """Whether each job's data is complete, (jobs,)."""
    complete = np.isfinite(seen["arrivals_per_min"]).all(axis=1)
    return complete & np.isfinite(seen["mean_latency_s"]) & np.isfinite(seen["ongoing"])


@pytest.mark.parametrize("trouble", ["slow", "wrong"])
def test_a_slow_or_wrong_query_costs_the_data_of_its_job_only(trouble):
    states, prometheus = JobStates(), prometheus_with()
    getattr(prometheus, trouble).add("count_j017")
    seen = observed(prometheus, MANY, states)
    assert np.flatnonzero(~known(seen)).tolist() == [17]
    assert [*states.troubled()] == ["j017"]
    assert states.of("j017").reason.startswith("query 'count_j017[$window]': ")


def test_a_slow_query_is_asked_alone_from_then_on_and_the_others_together():
    prometheus = prometheus_with()
    prometheus.slow.add("mean_j017")
    one = metrics(prometheus)
    for _ in range(8):
        prometheus.asked.clear()
        one.observe(queries_of(*MANY), ENDS, 1030.0)
    sizes = sorted(len(batch) for batch in prometheus.asked)
    assert sizes[0] == 1
    assert sizes[1:].count(1) == 0
    assert len(sizes) <= 18, "16 batches of 50, one without the slow query, and that query"


def test_several_slow_jobs_in_every_batch_cost_only_themselves():
    prometheus = prometheus_with()
    slow = {f"j{n:03d}" for n in range(0, 200, 20)}
    prometheus.slow |= slow
    one = metrics(prometheus)
    for _ in range(3):
        seen = one.observe(queries_of(*MANY), ENDS, 1030.0)
    assert {MANY[n] for n in np.flatnonzero(~known(seen))} == slow


def test_a_query_that_is_quick_again_joins_the_others():
    prometheus = prometheus_with()
    prometheus.slow.add("count_a")
    one = metrics(prometheus)
    one.observe(queries_of("a", "b"), ENDS, 1030.0)
    prometheus.slow.clear()
    for _ in range(QUICK_ANSWERS + 8):
        prometheus.asked.clear()
        one.observe(queries_of("a", "b"), ENDS, 1030.0)
    assert sorted(map(len, prometheus.asked)) == [2, 6], "by minute, and at the time of the tick"


def test_in_an_outage_prometheus_is_asked_little_and_no_query_is_blamed():
    prometheus = prometheus_with()
    prometheus.silent = True
    one = metrics(prometheus)
    seen = one.observe(queries_of(*MANY), ENDS, 1030.0)
    assert not known(seen).any()
    assert len(prometheus.asked) <= 20
    prometheus.silent = False
    prometheus.asked.clear()
    assert known(one.observe(queries_of(*MANY), ENDS, 1030.0)).all()
    assert len(prometheus.asked) == 16


class Clock:
    """A clock on which each request takes what it may take if it is slow, else 0.1 s."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_asking_one_by_one_ends_with_the_budget_and_goes_on_at_the_next_tick():
    clock = Clock()

    class Slow(FakePrometheus):
        def query_range(self, query, times_s, within_s=None):
            with self._lock:
                clock.now_s += within_s if "count_j007" in query else 0.01
            return super().query_range(query, times_s, within_s)

    prometheus = Slow(others=7.0)
    prometheus.slow.add("count_j007")
    batches = QueryBatches(prometheus, timeout_s=5.0, budget_s=8.0, clock_s=clock)
    questions = [Question(("x", n), f"count_j{n:03d}", (0.0,)) for n in range(BATCH)]
    lost = []
    for _ in range(4):
        began_s = clock.now_s
        answers = batches.ask(questions)
        assert clock.now_s - began_s <= 8.0 + 1.0
        lost.append(sum(np.isnan(answer.values).any() for answer in answers.values()))
    assert lost[0] <= 4
    assert lost[-1] == 1
