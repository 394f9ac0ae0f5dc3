"""The board of job states: what is wrong with one job, by the source that noticed it."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from observations import observed

from faro_lib.workload import Job
from faro_ops.operate.job_states import (
    CONTESTED,
    FAILING,
    FINE,
    GONE,
    MISCONFIGURED,
    MISSING,
    JobState,
    JobStates,
)
from faro_ops.operate.loop.job_reports import note_failures


def board(*times_s: float) -> JobStates:
    """A board whose clock shows `times_s`, one at each report."""
    return JobStates(iter(times_s).__next__)


def test_a_job_without_a_report_is_fine():
    assert JobStates().of("a") == JobState(FINE, "", 0.0)


def test_the_worst_report_of_all_sources_is_the_jobs_state():
    states = board(1.0, 2.0, 3.0)
    states.report("a", MISSING, "query 'x': timeout", by="metrics")
    states.report("a", MISCONFIGURED, "cores=1 is less than 2", by="templates")
    states.report("b", CONTESTED, "kubectl scales it", by="loop")
    assert states.of("a") == JobState(MISCONFIGURED, "cores=1 is less than 2", 2.0)
    assert states.of("b") == JobState(CONTESTED, "kubectl scales it", 3.0)
    assert states.troubled() == {"a": states.of("a"), "b": states.of("b")}


def test_of_two_equal_states_the_one_that_began_first_counts():
    states = board(1.0, 2.0)
    states.report("a", MISSING, "first", by="metrics")
    states.report("a", MISSING, "second", by="replicas")
    assert states.of("a").reason == "first"


def test_a_repeated_state_keeps_its_beginning_and_takes_the_new_reason():
    states = board(1.0, 9.0, 10.0)
    states.report("a", MISSING, "timeout", by="metrics")
    states.report("a", MISSING, "status 503", by="metrics")
    assert states.of("a") == JobState(MISSING, "status 503", 1.0)
    states.report("a", GONE, "no Deployment", by="metrics")
    assert states.of("a").since_s == 10.0


def test_a_source_clears_only_its_own_report():
    states = JobStates()
    states.report("a", MISSING, "timeout", by="metrics")
    states.report("a", GONE, "no Deployment", by="cluster")
    states.clear("a", by="cluster")
    assert states.of("a").state == MISSING
    states.report("a", FINE, "", by="metrics")
    assert states.of("a").state == FINE
    assert states.troubled() == {}


def test_a_source_that_sees_all_jobs_replaces_all_of_its_reports_at_once():
    states = JobStates()
    states.report("a", CONTESTED, "kubectl scales it", by="loop")
    states.report_all(MISSING, {"a": "timeout", "b": "timeout"}, by="metrics")
    states.report_all(MISSING, {"b": "timeout"}, by="metrics")
    assert {job: one.state for job, one in states.troubled().items()} == {
        "a": CONTESTED,
        "b": MISSING,
    }


def test_a_job_that_left_the_table_is_forgotten():
    states = JobStates()
    states.report("a", MISSING, "timeout", by="metrics")
    states.keep_only(["b"])
    assert states.troubled() == {}


def test_a_reason_is_one_line_and_an_unknown_state_is_refused():
    states = JobStates()
    states.report("a", MISSING, "parse error\n at char 3", by="metrics")
    assert states.of("a").reason == "parse error at char 3"
    with pytest.raises(ValueError, match=r"^state='lost' is unknown; accepted: fine, failing"):
        states.report("a", "lost", "", by="metrics")


def test_threads_report_and_read_at_the_same_time():
    states = JobStates()

    def report(source: str) -> None:
        for n in range(200):
            states.report(f"job{n % 7}", MISSING, source, by=source)
            states.troubled()
            states.clear(f"job{n % 7}", by=source)

    threads = [threading.Thread(target=report, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states.troubled() == {}


def failing(**counts):
    """The board after a minute with 1,000 requests of a, and 1,000 of b without a fault."""
    states, jobs = JobStates(), (Job("a"), Job("b"))
    seen = observed([2, 2], arrivals_per_min=np.full((2, 1), 1000.0))
    counted = {f"{name}_per_min": np.array([count, 0.0]) for name, count in counts.items()}
    note_failures(states, jobs, replace(seen, **counted))
    assert states.of("b").state == FINE
    note_failures(states, jobs, replace(seen, arrivals_per_min=np.zeros((2, 0))))
    return states


def test_a_job_whose_requests_fail_or_whose_clients_hang_up_is_failing():
    reason = "2.0% of its requests fail; Faro does not take this for slowness"
    state = failing(failed=20.0).of("a")
    assert (state.state, state.reason) == (FAILING, reason)
    both = failing(failed=20.0, cancelled=300.0).of("a").reason
    assert both.startswith(
        "2.0% of its requests fail, and the clients of 30.0% of its requests hang up"
    )


@pytest.mark.parametrize("counts", [{}, dict(failed=4.0), dict(failed=np.nan, cancelled=np.nan)])
def test_few_or_unknown_failures_are_no_state(counts):
    assert failing(**counts).of("a").state == FINE


def test_a_failing_job_is_fine_again_after_a_minute_without_failures():
    states = failing(failed=20.0)
    note_failures(states, (Job("a"),), observed([2], arrivals_per_min=np.full((1, 1), 1000.0)))
    assert states.troubled() == {}


def test_failures_of_a_job_with_another_trouble_do_not_hide_it():
    states = failing(failed=20.0)
    states.report("a", MISSING, "query 'x': timeout", by="metrics")
    assert states.of("a").state == MISSING
