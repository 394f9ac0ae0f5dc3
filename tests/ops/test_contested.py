"""Two controllers on one Ray, and clients that keep changing what Faro requests."""

import time

import numpy as np
import pytest
from live_things import JOBS, FakeRay, Wanting
from observations import observed

from faro_lib.control import Memory
from faro_lib.protocol import CONTESTED, DRIFT_CORRECTED
from faro_lib.workload import Job
from faro_ops.http import HttpClient
from faro_ops.journal import reading, writing
from faro_ops.operate.clock import Clock
from faro_ops.operate.loop import resume
from faro_ops.operate.loop.loop import run
from faro_ops.operate.loop.tick import tick
from faro_ops.operate.rayserve.cluster import Lease, RayServeCluster
from faro_ops.operate.rayserve.spec import serve_specs
from faro_ops.operate.scaling import NotScaled
from faro_ops.protocol import LiveGuardrails


def controller(address, holder, duration_s=30.0, force=False) -> RayServeCluster:
    rest = HttpClient(address)
    lease = Lease(holder, duration_s, force)
    return RayServeCluster(
        JOBS, serve_specs(JOBS), rest, rest, Clock(int(time.time()) - 120), None, lease
    )


class TestTheLeaseOfARay:
    @pytest.fixture
    def ray(self):
        return FakeRay({"a": 2, "b": 2})

    def test_a_second_controller_is_refused_and_told_who_is_first(self, ray):
        with ray.served() as address:
            controller(address, "first").connect()
            with pytest.raises(
                ValueError, match="controller first scales the jobs of this Ray cluster; stop it"
            ):
                controller(address, "second").connect()

    def test_a_controller_that_starts_again_with_its_name_continues_at_once(self, ray):
        with ray.served() as address:
            controller(address, "first").connect()
            controller(address, "first").connect()

    def test_a_dry_run_needs_no_lease(self, ray):
        with ray.served() as address:
            controller(address, "first").connect()
            rest = HttpClient(address)
            RayServeCluster(JOBS, serve_specs(JOBS), rest, rest, Clock(int(time.time()))).connect()

    def test_the_lease_is_free_once_it_is_released(self, ray):
        with ray.served() as address:
            first = controller(address, "first")
            first.connect()
            first.release_lease()
            controller(address, "second").connect()

    def test_the_lease_of_a_controller_that_died_expires(self, ray):
        with ray.served() as address:
            controller(address, "first", duration_s=0.01).connect()
            time.sleep(0.02)
            controller(address, "second").connect()

    def test_after_a_takeover_by_force_the_first_controller_changes_nothing(self, ray):
        with ray.served() as address:
            first, second = controller(address, "first"), controller(address, "second", force=True)
            first.connect()
            first.observe()
            second.connect()
            with pytest.raises(OSError, match="controller second scales the jobs"):
                first.apply(np.array([4, 4]), np.zeros(2))
            assert ray.scaled == []
            second.observe()
            second.apply(np.array([3, 2]), np.zeros(2))
            assert ray.scaled == [("a", 3)]


class Contested:
    """A cluster in which another client sets job a to 1 replica between ticks, without waiting."""

    def __init__(self, fails=False):
        self.now_s = 0.0
        self.target = np.array([1, 1])
        self.fails = fails
        self.requests = []

    def advance(self, until_s):
        self.now_s = until_s
        self.target[0] = 1

    def observe(self):
        return observed(self.target.copy(), now_s=self.now_s)

    def apply(self, target, drop):
        if self.fails:
            raise OSError("no answer")
        self.requests.append(target.tolist())
        self.target = target.copy()

    def writer_of(self, job):
        return "an HPA"


def told_by(cluster, until_s=100.0, **options):
    told = []
    steps = []
    run(
        cluster,
        Wanting([3, 2]),
        JOBS,
        until_s,
        on_step=steps.append,
        on_failure=lambda reason, line: told.append((reason, line)),
        **options,
    )
    return told, steps


def test_a_target_that_another_client_undoes_three_times_is_left_alone_and_the_client_is_named():
    cluster = Contested()
    told, steps = told_by(cluster)
    assert [request[0] for request in cluster.requests] == [3, 3, 3, 1, 1, 1, 1, 1, 1]
    assert {request[1] for request in cluster.requests} == {2}
    assert [step.plan.reason[0] for step in steps[1:4]] == [
        DRIFT_CORRECTED,
        DRIFT_CORRECTED,
        CONTESTED,
    ]
    assert told[0] == (
        CONTESTED,
        "job 'a': an HPA keeps setting 1 replicas instead of 3; "
        "Faro leaves it alone, and overrules it only with --force",
    )


def test_with_force_the_targets_are_restored_for_ever():
    cluster = Contested()
    told, _ = told_by(cluster, guardrails=LiveGuardrails(force=True))
    assert {request[0] for request in cluster.requests} == {3}
    assert told == []


def test_a_change_by_hand_now_and_then_is_no_contest():
    policy = Wanting([3, 2])
    memory = Memory.start(Wanting([3, 2]), JOBS)
    reasons = []
    for n in range(40):
        target = [1, 2] if n % 5 == 4 else [3, 2]
        memory, step = tick(
            policy, LiveGuardrails(), JOBS, memory, observed(target, now_s=10.0 * n)
        )
        reasons.append(step.plan.reason[0])
    assert CONTESTED not in reasons


def test_targets_that_could_not_be_applied_are_no_contest():
    told, steps = told_by(Contested(fails=True))
    assert {reason for reason, _ in told} == {"apply"}
    assert all(CONTESTED not in step.plan.reason for step in steps)


def test_a_contest_is_remembered_over_a_restart(tmp_path):
    told_by(Contested(), journal=tmp_path / "j")
    cluster = Contested()
    cluster.now_s = 90.0
    told_by(cluster, until_s=150.0, journal=tmp_path / "j")
    assert {request[0] for request in cluster.requests} == {1}
    header, ticks = reading.read(tmp_path / "j")
    assert all(
        old.target.tolist() == new.target.tolist()
        for old, new in resume.replay(Wanting([3, 2]), header, ticks)
    )


def test_a_contest_is_remembered_if_it_began_before_the_replayed_ticks(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "REPLAYED_TICKS", 3)
    told_by(Contested(), journal=tmp_path / "j")
    cluster = Contested()
    cluster.now_s = 90.0
    told_by(cluster, until_s=150.0, journal=tmp_path / "j")
    assert {request[0] for request in cluster.requests} == {1}


def test_other_jobs_make_room_for_a_contested_job():
    jobs = (Job("a"), Job("b"))
    policy = Wanting([1, 5])
    config = LiveGuardrails()
    memory = Memory.start(policy, jobs)
    for n in range(6):
        memory, step = tick(
            policy, config, jobs, memory, observed([4, 5 if n == 0 else 2], 6.0, now_s=10.0 * n)
        )
    assert step.plan.reason[0] == CONTESTED
    assert step.target.tolist() == [4, 2]


class AlwaysFailing(Contested):
    """As `Contested`, but each request for job b fails."""

    def apply(self, target, drop):
        super().apply(np.array([target[0], self.target[1]]), drop)
        raise NotScaled("b is not scaled to 2: no such deployment", np.array([1]))


def test_a_job_whose_requests_always_fail_does_not_hide_that_another_job_is_contested(tmp_path):
    told, steps = told_by(AlwaysFailing(), journal=tmp_path / "j")
    assert [step.plan.reason[0] for step in steps].count(CONTESTED) > 3
    assert all(step.plan.reason[1] != CONTESTED for step in steps)
    assert {reason for reason, _ in told} == {"apply", CONTESTED}
    header, ticks = reading.read(tmp_path / "j")
    assert {one.failed for one in ticks} == {(1,)}
    replayed = resume.replay(Wanting([3, 2]), header, ticks)
    assert all(old.plan.reason == new.plan.reason for old, new in replayed)
