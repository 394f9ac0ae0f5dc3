"""Failures and hang-ups of one service while the capacity is short, as they once trapped it.

Five services share two Ray workers. Requests of one of them fail for ten minutes. If failures count
as slowness, its learned service time rises, no number of replicas seems to be enough, and it loses
its replicas; and then it is slow indeed.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
from soak import befall, pass_time, start, twin_of
from soak_faults import EVIDENCE, RAY, Fault, across, faults_of, kill_all, well
from soak_invariants import Figures, Invariants
from soak_service import Trouble
from soak_world import Sizes, World, in_world

from faro_lib.policies import learning
from faro_lib.policies.evidence import evidence_of
from faro_lib.policies.raised import Raised

HOURS = 1.0
SHARE = 0.02  # of the requests
RATES = {"a": 8.0, "b": 8.0, "c": 8.0, "d": 8.0, "e": 5.0}
# By the cores of a worker: too few for all SLOs, about enough, and more than enough.
SIZES = {
    cores: Sizes(
        cores=cores, rates=RATES, service_s=0.18, swing=0.0, minimum=1, started=2, ordered=""
    )
    for cores in (6, 7, 10)
}


def of_a_share(**trouble) -> Fault:
    def begin(world: World, job: str) -> None:
        world.troubles[job] = Trouble(**trouble)

    return Fault("ten minutes of trouble", begin, well, RAY, 600.0, EVIDENCE)


# A service that becomes 1.5 times slower needs more than it has, and the cores are there.
TO_SPARE = Sizes(rates=dict.fromkeys("abcde", 14.0), swing=0.0, ordered="")


def hour(sizes: Sizes, fault: Fault, hours: float = HOURS) -> Figures:
    """What an hour has seen in which a fault befalls `a`, with the promise checked all the time."""
    checked = Invariants(twin_of("ray", hours, sizes), troubled=("a",))
    with in_world("ray", 2, checked.step, checked.failure, sizes) as world:
        start(world, checked, None)
        begin_s = world.clock.now_s
        befall(world, checked, fault, "a")
        pass_time(world, begin_s + 3600 * hours - world.clock.now_s, checked, None)
    return checked.figures


FAILURES = of_a_share(failing=SHARE)
HANG_UPS = of_a_share(hanging_up=SHARE, patience_s=0.1)


def test_ten_minutes_of_failures_take_no_replica_from_a_service_or_its_neighbours():
    assert hour(SIZES[6], FAILURES).broken == []


def failures_count_as_slowness(jobs, observation, replicas, latency_model):
    """What a minute says without the rule that a fault is not slowness."""
    as_latency = replace(
        observation,
        **dict.fromkeys(("served_per_min", "failed_per_min", "refused_per_min"), None),
        cancelled_per_min=None,
        served_tail_latency_s=None,
    )
    return evidence_of(jobs, as_latency, replicas, latency_model)


def test_the_soak_notices_if_failures_count_as_slowness():
    twin_of("ray", HOURS, SIZES[6])  # made before the rule is removed
    with mock.patch.object(learning, "evidence_of", failures_count_as_slowness):
        broken = hour(SIZES[6], FAILURES).broken
    assert any("job a" in line or "a has" in line for line in broken), broken


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [FAILURES, HANG_UPS], ids=["failures", "hang-ups"])
@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize("cores", sorted(SIZES))
def test_failures_and_hang_ups_take_no_replica_also_across_a_restart(cores, restart, trouble):
    fault = across(trouble, "a restart", kill_all) if restart else trouble
    figures = hour(SIZES[cores], fault)
    assert figures.broken == []
    assert figures.trials > 100


@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
def test_a_service_that_is_really_slower_gets_the_replicas_that_it_needs(restart):
    assert TO_SPARE.service.enough(14.0, 1.5) > TO_SPARE.started
    (fault,) = faults_of("ray", ("a service is slower for 20 minutes",))
    fault = across(fault, "a restart", kill_all) if restart else fault
    figures = hour(TO_SPARE, fault)
    assert figures.broken == []
    assert figures.moves[0, "a"] > 0


FLOOR_S = 0.7  # a latency that replicas do not change, below the SLO


def latency_floor(world: World, job: str) -> None:
    world.troubles[job] = Trouble(floor_s=FLOOR_S)


def hour_long_floor() -> Fault:
    return Fault("an hour of a floor", latency_floor, well, RAY, 3600.0, EVIDENCE)


@pytest.mark.slow
@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
def test_replicas_that_a_latency_floor_asked_for_go_back_when_it_ends(restart):
    fault = hour_long_floor()
    fault = across(fault, "a restart", kill_all) if restart else fault
    figures = hour(SIZES[10], fault, hours=1.5)
    assert figures.broken == []
    assert figures.moves[0, "a"] > 0


@pytest.mark.slow
def test_the_soak_notices_if_they_stay():
    with mock.patch.object(Raised, "staying_at", lambda _, target: target):
        broken = hour(SIZES[10], hour_long_floor(), hours=1.5).broken
    assert any("after its end, a has" in line for line in broken), broken
