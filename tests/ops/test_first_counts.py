"""A job of which no minute was ever counted keeps its replicas; the other jobs are planned."""

import numpy as np
import pytest
from observations import observed

from faro_lib.control import run as run_library
from faro_lib.forecast import fit
from faro_lib.policies.factories import PolicyContext, make
from faro_lib.protocol import FAILED, MISSING
from faro_lib.workload import Job, Traces
from faro_ops.operate.job_states import FINE, JobStates
from faro_ops.operate.job_states import MISSING as MISSING_STATE
from faro_ops.operate.limits.bounds import KEEP_FLOOR, AsBounds
from faro_ops.operate.loop.expected import expected
from faro_ops.operate.loop.loop import run
from faro_ops.protocol import live_plan

JOBS = tuple(Job(name, service_time_s=0.2, slo_s=1.0) for name in ("one", "two", "late"))
LATE = 2
COUNTED_FROM = 5  # the first minute in which requests of the late job are counted
CAPACITY = 24.0


def untrained(jobs=JOBS):
    no_days = np.zeros((0, 1, len(jobs), 1440), int)
    return fit("auto", Traces(jobs, no_days, no_days.sum(axis=0)))


def policy_of(name="Faro-Sum", jobs=JOBS):
    return make(name, PolicyContext(jobs, forecaster=untrained(jobs)))


class Cluster:
    """Jobs with 600 requests a minute; those in `late` are counted from minute COUNTED_FROM on."""

    def __init__(self, late=(LATE,), **fields):
        self.target, self.late, self.fields, self.now_s = [2, 2, 2], list(late), fields, 0.0

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        minute = int(self.now_s // 60)
        counts = np.full((3, minute), 600.0)
        counts[self.late, :COUNTED_FROM] = np.nan
        latency_s = np.full(3, 0.2)
        if minute < COUNTED_FROM:
            latency_s[self.late] = np.nan
        return observed(
            self.target,
            CAPACITY,
            now_s=self.now_s,
            minute=minute,
            arrivals_per_min=counts[:, -15:],
            mean_latency_s=latency_s,
            tail_latency_s=latency_s,
            **self.fields,
        )

    def apply(self, target, drop, **bounds):
        self.target = target.tolist()


def live(cluster, policy, jobs=JOBS, **options):
    """(steps, failures) of a live loop."""
    steps, failures = [], []
    options = {"on_step": steps.append, "on_failure": lambda *one: failures.append(one)} | options
    run(cluster, policy, jobs, 480.0, **options)
    return steps, failures


def library(cluster, policy):
    steps = []
    run_library(cluster, policy, JOBS, 480.0, on_step=steps.append)
    return steps, []


@pytest.mark.parametrize("loop", [live, library])
@pytest.mark.parametrize("name", ["Faro-Sum", "Faro-FairSum", "MArk"])
def test_a_job_without_counts_keeps_its_replicas_while_the_others_are_planned(name, loop):
    cluster = Cluster()
    cluster.target = [1, 1, 2]
    steps, failures = loop(cluster, policy_of(name))
    assert FAILED not in [reason for reason, _ in failures]
    before = [one for one in steps if 1 <= one.observation.minute <= COUNTED_FROM]
    assert {one.target[LATE] for one in before} == {2}
    assert {one.plan.reason[LATE] for one in before} == {MISSING}
    planned = [one for one in before if one.plan.forecast_rps is not None]
    assert planned
    assert np.isfinite([one.plan.forecast_rps[:LATE] for one in planned]).all()
    assert all(np.isnan(one.plan.forecast_rps[LATE]) for one in planned), "nothing is invented"
    assert (before[-1].target[:LATE] > 1).all()
    assert before[-1].target.sum() <= CAPACITY


@pytest.mark.parametrize("loop", [live, library])
def test_it_is_planned_once_its_counts_are_known(loop):
    steps, _ = loop(Cluster(), policy_of())
    after = [one for one in steps if one.observation.minute > COUNTED_FROM]
    assert MISSING not in after[-1].plan.reason
    assert after[-1].target[LATE] > 2


def test_its_state_says_that_its_data_is_missing_until_then():
    states = JobStates()
    found = {}

    def note(step):
        found[step.observation.now_s] = tuple(states.of(job.name).state for job in JOBS)

    live(Cluster(), policy_of(), states=states, on_step=note)
    assert {found[float(now_s)] for now_s in range(60, 350, 10)} == {(FINE, FINE, MISSING_STATE)}
    assert found[470.0] == (FINE, FINE, FINE)


def test_jobs_of_which_none_is_counted_are_held_and_the_policy_does_not_fail():
    steps, failures = live(Cluster(late=(0, 1, 2)), policy_of())
    assert FAILED not in {reason for reason, _ in failures}
    minutes = [one for one in steps if 1 <= one.observation.minute <= COUNTED_FROM]
    assert {one.plan.reason for one in minutes} == {(MISSING,) * 3}
    assert {tuple(one.target) for one in minutes} == {(2, 2, 2)}
    assert (steps[-1].target > 2).all()


def test_before_the_first_complete_minute_nothing_is_missing():
    steps, failures = live(Cluster(), policy_of())
    first = [one for one in steps if not one.observation.minute]
    assert {one.plan.reason for one in first} == {("hold",) * 3}
    assert not [reason for reason, message in failures if message in ("at 10 s", "at 50 s")]


def test_the_cores_of_a_job_without_counts_stay_reserved():
    cluster = Cluster()
    cluster.target = [1, 1, 20]
    steps, _ = live(cluster, policy_of())
    before = [one for one in steps if 1 <= one.observation.minute <= COUNTED_FROM]
    assert {one.target[LATE] for one in before} == {20}
    assert before[-1].target.sum() <= CAPACITY


def test_an_autoscaler_of_a_job_without_counts_keeps_its_bounds():
    replicas = np.array([2, 2, 2])
    cluster = Cluster(replicas=replicas, floor=np.ones(3, int), unbounded=np.zeros(3, bool))
    steps, _ = live(cluster, AsBounds.of(policy_of()))
    before = [one for one in steps if 1 <= one.observation.minute <= COUNTED_FROM]
    floors = [live_plan(one.plan).floor for one in before]
    floors = [floor for floor in floors if floor is not None]
    assert floors
    assert {floor[LATE] for floor in floors} == {KEEP_FLOOR}
    assert {one.target[LATE] for one in before} == {2}


def test_a_job_without_counts_in_a_pool_leaves_the_models_of_the_pool_as_they_are():
    shared = {"service_time_s": 0.2, "slo_s": 1.0, "pool": "x", "models_per_replica": 2}
    jobs = (JOBS[0], Job("two", **shared), Job("late", **shared))
    steps, failures = live(Cluster(), policy_of(jobs=jobs), jobs)
    assert FAILED not in {reason for reason, _ in failures}
    before = [one for one in steps if 1 <= one.observation.minute <= COUNTED_FROM]
    assert {one.target[LATE] for one in before} == {2}
    assert not any(one.plan.placement for one in before)
    assert any(one.plan.placement for one in steps[len(before) :])


def test_a_forecaster_says_which_jobs_it_knows():
    none = untrained()
    assert none.known().tolist() == [False] * 3
    counted = none.update([600, np.nan, 0])
    assert counted.known().tolist() == [True, False, True]
    assert expected(counted, ()).known().tolist() == [True, False, True]
    days = np.full((1, 1, 3, 60), 5)
    trained = fit("auto", Traces(JOBS, days, days[0]))
    assert trained.start().known().all()
