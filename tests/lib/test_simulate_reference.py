"""The compiled simulator equals a plain one, written from the paper, to the last request."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import reference_simulator as reference
from hypothesis import given, settings
from schedules import Schedule, schedules


def parameters(replica):
    """The kind and all parameters of a replica, as a mapping."""
    values = {field.name: getattr(replica, field.name) for field in fields(replica)} | {
        "kind": replica.kind
    }
    return values | ({"batch_s": replica.durations_s} if replica.kind == "batched" else {})


def run_plainly(schedule: Schedule, draws):
    """The schedule in the plain simulator: (cluster, latency of every request)."""
    columns = [draws.arrival_s, draws.router_in_s, draws.service_s, draws.router_out_s, draws.coin]
    if len(draws.prompt_tokens):
        columns += [draws.prompt_tokens, draws.output_tokens]
    jobs = schedule.workload.jobs
    requests = [reference.Request(*row) for row in zip(*(column.tolist() for column in columns))]
    plain = reference.Cluster(
        [requests[a:b] for a, b in zip(draws.first[:-1], draws.first[1:])],
        schedule.tenths,
        schedule.capacity_tenths,
        schedule.initial,
        [
            (schedule.tick_s * (tick + 1), wanted, drop, attempts)
            for tick, (wanted, drop, attempts) in enumerate(
                zip(schedule.wanted, schedule.drop, schedule.attempts)
            )
        ],
        [draws.shuffler(job).permutation for job in range(len(schedule.tenths))],
        [parameters(job.replica) for job in jobs],
        [
            max(4, 2 * job.replica.max_in_service) if job.replica.kind != "serial" else 4
            for job in jobs
        ],
    )
    return plain, np.concatenate(plain.run())


def assert_equal_to_the_last_request(schedule: Schedule, draws=None):
    draws = schedule.draws() if draws is None else draws
    cluster, steps = schedule.run(draws)
    plain, latency_s = run_plainly(schedule, draws)
    assert len(steps) == len(schedule.wanted)
    for step, seen, target in zip(steps, plain.seen, plain.targets):
        observed = step.observation
        assert observed.now_s == seen.now_s
        assert observed.running.tolist() == seen.running
        assert observed.terminating.tolist() == seen.terminating
        assert observed.changing.tolist() == seen.changing
        assert observed.ongoing.tolist() == seen.ongoing
        np.testing.assert_allclose(observed.mean_latency_s, seen.mean_latency_s, rtol=1e-9)
        assert step.target.tolist() == target
    np.testing.assert_array_equal(cluster.latency_s, latency_s)


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_every_request_has_the_latency_of_the_plain_simulator(schedule):
    assert_equal_to_the_last_request(schedule)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(schedules())
def test_every_request_has_the_latency_of_the_plain_simulator_in_more_cases(schedule):
    assert_equal_to_the_last_request(schedule)


def test_replicas_requested_before_the_end_still_start_after_it():
    schedule = Schedule(
        counts=[[1000]],
        tenths=[10],
        spare_tenths=30,
        initial=[1],
        tick_s=20,
        wanted=[[1], [4]],
        drop=[[0.0], [0.0]],
        attempts=[1, 1],
        seed=1,
    )
    assert_equal_to_the_last_request(schedule)
    _, steps = schedule.run(schedule.draws())
    assert steps[-1].observation.running.tolist() == [1]


def test_a_replica_without_cores_waits_until_another_jobs_idle_pod_is_collected():
    schedule = Schedule(
        counts=[[300, 300]] * 3,
        tenths=[10, 10],
        spare_tenths=0,
        initial=[1, 2],
        tick_s=10,
        wanted=[[1, 2]] + [[2, 1]] * 16,
        drop=[[0.0, 0.0]] * 17,
        attempts=[1] * 17,
        seed=1,
    )
    assert_equal_to_the_last_request(schedule)
    _, steps = schedule.run(schedule.draws())
    more = [step.observation.now_s for step in steps if step.observation.running[0] == 2]
    # Requested at 20 s; the pod is idle from then on, collected at 50 s, the retry at 50 s
    # succeeds, ready 35 s later.
    assert more[0] == 90.0


def test_the_pod_that_has_been_idle_longest_is_reused_first():
    wanted = [[3, 1]] + [[2, 1]] * 2 + [[1, 1]] + [[2, 1]] * 2 + [[2, 2]] * 11
    schedule = Schedule(
        counts=[[300, 300]] * 3,
        tenths=[10, 10],
        spare_tenths=0,
        initial=[3, 1],
        tick_s=10,
        wanted=wanted,
        drop=[[0.0, 0.0]] * 17,
        attempts=[1] * 17,
        seed=1,
    )
    assert_equal_to_the_last_request(schedule)
    _, steps = schedule.run(schedule.draws())
    idle = {step.observation.now_s: int(step.observation.terminating[0]) for step in steps}
    # Idle from 20 s and from 40 s; one is reused at 50 s. The other exists until 70 s only if it is
    # the younger one.
    assert [idle[at_s] for at_s in (30.0, 50.0, 60.0, 70.0, 80.0)] == [1, 2, 1, 1, 0]
