"""The compiled simulator against a plain one written from the paper's description: equal to the last request."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import reference_simulator as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from faro_lib import control
from faro_lib.policies.base import HOLD, Plan
from faro_lib.simulate import SimulatedCluster, draw
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S


@dataclass
class Scripted:
    """A policy that asks for what a script says, turn by turn, and keeps what it saw."""

    wanted: np.ndarray  # (turns, jobs)
    drop: np.ndarray  # (turns, jobs)
    tries: list[int]
    tick_s: float
    name: str = "Scripted"
    seen: list = field(default_factory=list)

    def start(self, jobs):
        return 0

    def decide(self, turn, observation):
        self.seen.append(observation)
        plan = Plan(self.wanted[turn], self.drop[turn], (HOLD,) * len(observation.target), self.tries[turn])
        return turn + 1, plan


@dataclass(frozen=True)
class Case:
    counts: list  # requests per minute, job by job
    tenths: list  # cores of a replica, in tenths
    spare_tenths: int  # capacity beyond the initial replicas
    initial: list
    tick_s: int
    wanted: list
    drop: list
    tries: list
    seed: int


@st.composite
def cases(draw_from):
    """Few minutes, few replicas, little room: pods wait, queues overflow, replicas go while they still hold requests."""
    jobs = draw_from(st.integers(1, 3))
    minutes = draw_from(st.integers(1, 3))
    tick_s = draw_from(st.sampled_from([2, 5, 7, 10]))
    turns = int(np.ceil(minutes * MINUTE_S / tick_s)) - 1

    def per_job(values):
        return st.lists(values, min_size=jobs, max_size=jobs)

    def per_turn(values):
        # Long stretches of the same wish, so that changes have the time to happen.
        change = st.tuples(st.integers(0, turns - 1), values)
        return st.lists(change, max_size=12).map(lambda changes: sorted(changes, key=lambda change: change[0]))

    initial = draw_from(per_job(st.integers(1, 4)))
    wanted, drop = np.tile(initial, (turns, 1)), np.zeros((turns, jobs))
    for turn, targets in draw_from(per_turn(per_job(st.integers(1, 6)))):
        wanted[turn:] = targets
    for turn, rates in draw_from(per_turn(per_job(st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0])))):
        drop[turn:] = rates
    return Case(
        draw_from(st.lists(per_job(st.integers(0, 1200)), min_size=minutes, max_size=minutes)),
        draw_from(per_job(st.sampled_from([10, 10, 5, 20, 3]))),
        draw_from(st.integers(0, 40)),
        initial,
        tick_s,
        wanted.tolist(),
        drop.tolist(),
        draw_from(st.lists(st.sampled_from([1, 5]), min_size=turns, max_size=turns)),
        draw_from(st.integers(0, 2**31)),
    )


def run_both(case: Case):
    """The same requests, the same wishes, in both simulators."""
    jobs = tuple(Job(f"job{n}", cores=tenths / 10) for n, tenths in enumerate(case.tenths))
    workload = Workload(jobs, np.array(case.counts).T)
    draws = draw(workload, case.seed)
    capacity_tenths = int(np.dot(case.initial, case.tenths)) + case.spare_tenths

    policy = Scripted(np.array(case.wanted), np.array(case.drop), case.tries, float(case.tick_s))
    cluster = SimulatedCluster(workload, draws, capacity_tenths / 10, np.array(case.initial))
    steps: list[control.Step] = []
    control.run(cluster, policy, jobs, workload.minutes * MINUTE_S, on_step=steps.append)
    cluster.finish()

    columns = [
        array.tolist()
        for array in (draws.arrival_s, draws.router_in_s, draws.service_s, draws.router_out_s, draws.coin)
    ]
    requests = [reference.Request(*row) for row in zip(*columns)]
    plain = reference.Cluster(
        [requests[a:b] for a, b in zip(draws.first[:-1], draws.first[1:])],
        case.tenths,
        capacity_tenths,
        case.initial,
        [
            (case.tick_s * (turn + 1), wanted, drop, tries)
            for turn, (wanted, drop, tries) in enumerate(zip(case.wanted, case.drop, case.tries))
        ],
        [draws.shuffler(job).permutation for job in range(len(jobs))],
    )
    latency_s = plain.run()
    return cluster, steps, plain, np.array(sum(latency_s, []))


def check(case: Case):
    cluster, steps, plain, latency_s = run_both(case)
    for step, seen, target in zip(steps, plain.seen, plain.targets):
        observed = step.observation
        assert observed.now_s == seen.now_s
        assert observed.running.tolist() == seen.running
        assert observed.idle.tolist() == seen.idle
        assert observed.changing.tolist() == seen.changing
        assert observed.queue.tolist() == seen.queue
        np.testing.assert_allclose(observed.mean_latency_s, seen.mean_latency_s, rtol=1e-9)
        assert step.target.tolist() == target
    np.testing.assert_array_equal(cluster.latency_s, latency_s)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_request_fares_as_in_the_plain_simulator(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(cases())
def test_every_request_fares_as_in_the_plain_simulator_in_many_more_cases(case):
    check(case)


def test_replicas_that_were_asked_for_before_the_end_still_come_while_the_last_requests_are_served():
    turns = 5
    check(
        Case(
            counts=[[1000]],
            tenths=[10],
            spare_tenths=30,
            initial=[1],
            tick_s=10,
            wanted=[[1]] * (turns - 1) + [[4]],
            drop=[[0.0]] * turns,
            tries=[1] * turns,
            seed=1,
        )
    )
