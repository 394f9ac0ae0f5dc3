"""Leader election: at most one of several controllers acts."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from kube_api import KubeApi
from kube_things import LEASE, lease

from faro_ops.operate.kube import lease as module
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.hpa_bounds import UNLED_S
from faro_ops.operate.kube.lease import (
    LONGEST_GAP_S,
    NOBODY,
    POD_NAME,
    POD_UID,
    Candidate,
    Leadership,
    LeaseTimings,
    LeaseWatch,
    candidate_identity,
    observe,
    seconds_unled,
    written,
)

TIMINGS = LeaseTimings(duration_s=10, retry_period_s=2, renew_deadline_s=8)


def test_a_released_lease_is_taken_at_once():
    assert observe(Candidate("me"), lease(""), now_s=0)[1] == "me"


def test_a_lease_that_is_renewed_stays_with_its_holder_forever():
    me = Candidate("me")
    for second in range(100):
        me, name = observe(me, lease("other", str(second)), second)
        assert name is None


def test_a_lease_without_renewals_is_taken_after_it_expires_by_our_own_clock():
    me, name = observe(Candidate("me"), lease("other"), 100)
    assert name is None, "its last renewal may be recent"
    assert observe(me, lease("other"), 110)[1] is None
    assert observe(me, lease("other"), 110.1)[1] == "me"


def test_the_clock_of_the_holder_does_not_matter():
    """Its renewTime may be hours off: what counts is when we saw it change."""
    me, _ = observe(Candidate("me"), lease("other", "1970-01-01T00:00:00Z"), 0)
    assert observe(me, lease("other", "1970-01-01T00:00:02Z"), 9)[1] is None


def test_a_vanished_lease_belongs_to_nobody_until_it_would_have_expired():
    me, name = observe(Candidate("me"), None, 0, TIMINGS)
    assert name == NOBODY, "its former holder may not know yet"
    me, name = observe(me, lease(NOBODY), 1, TIMINGS)
    assert name is None
    assert observe(me, lease(NOBODY), 11.1, TIMINGS)[1] == "me"


def test_a_leader_takes_back_a_lease_that_vanished():
    me = written(Candidate("me"), TIMINGS, sent_s=0)
    assert observe(me, None, 1, TIMINGS)[1] == "me"
    assert observe(me, lease(NOBODY), 7.9, TIMINGS)[1] == "me"
    assert observe(me, lease(NOBODY), 8, TIMINGS)[1] is None, (
        "it is no longer the leader, and waits like any candidate"
    )


def test_a_lease_that_vanishes_twice_is_waited_for_again():
    me, _ = observe(Candidate("me"), None, 0, TIMINGS)
    assert observe(me, None, 11, TIMINGS)[1] == NOBODY, (
        "another candidate may have written it at 1, and lead until 9"
    )


def test_a_leader_stops_renew_deadline_s_after_it_sent_its_last_renewal():
    me = written(Candidate("me"), TIMINGS, sent_s=50)
    assert me.is_leader(57.9)
    assert not me.is_leader(58)


def test_timings_that_leave_no_time_to_renew_are_refused():
    with pytest.raises(ValueError, match="retry_period_s=9"):
        LeaseTimings(duration_s=10, retry_period_s=9, renew_deadline_s=8)


class Server:
    """One lease, written only upon the version that was read."""

    def __init__(self):
        self.lease, self.version = None, 0

    def write(self, new, version) -> bool:
        if version != self.version:
            return False
        self.lease, self.version = new, self.version + 1
        return True


@examples(600)
@given(st.integers(0, 2**32 - 1))
def test_two_candidates_never_lead_at_once_however_slow_or_forgetful_the_server(seed):
    """Requests may be lost or take any time on their way there and back.

    The server may forget everything.
    """
    chance = random.Random(seed)  # draws by hypothesis would cost most of the time
    server, stamp = Server(), itertools.count()
    candidates = {"a": Candidate("a"), "b": Candidate("b")}
    pending: dict[str, list] = {"a": [], "b": []}
    for now in range(120):
        if chance.randint(0, 60) == 0:
            server.lease, server.version = None, server.version + 1
        for name in candidates:
            steps = pending[name]
            if not steps and chance.random() < 0.5:
                steps += ["read", "send"]
            elif steps and chance.random() < 0.5:
                if steps[0] == "read":
                    lease_read, version = server.lease, server.version
                    candidates[name], holder = observe(candidates[name], lease_read, now, TIMINGS)
                    pending[name] = [(holder, version, now), "answer"] if holder else []
                else:
                    holder, version, sent_s = steps[0]
                    done = server.write(lease(holder, str(next(stamp))), version)
                    if done and chance.random() < 0.5 and holder != NOBODY:
                        candidates[name] = written(candidates[name], TIMINGS, sent_s)
                    pending[name] = []
        assert sum(one.is_leader(now) for one in candidates.values()) <= 1


# --- how long nobody has led ----------------------------------------------------------------------


class World:
    """A lease on an API server, and a clock; `leads` renews the lease every two seconds.

    skew_s : how far the leader's clock is ahead of the observer's, and of every other machine's.
    """

    def __init__(self):
        self.now_s, self.leads, self.skew_s = 1000.0, False, 0.0
        self.api = KubeApi()
        self.renew()

    def renew(self) -> None:
        stamp = datetime.now(UTC) + timedelta(seconds=self.now_s + self.skew_s)
        self.api.put(LEASE, lease("leader", stamp.isoformat()))

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float):
        self.now_s += seconds
        if self.leads:
            self.renew()

    @property
    def reads(self) -> int:
        return len([method for method, _, _ in self.api.requests if method == "GET"])


@pytest.fixture
def world(monkeypatch):
    world = World()
    monkeypatch.setattr(module, "time", world)
    return world


def standby(world, for_s: float) -> Leadership:
    """A standby after `for_s` seconds of attempts to take the lease."""
    leadership = Leadership(world.api, "jobs", "faro", "standby")
    attempts(leadership, world, for_s)
    return leadership


def attempts(leadership: Leadership, world: World, for_s: float):
    """Let the standby try every two seconds, as its thread does."""
    until_s = world.now_s + for_s
    while world.now_s < until_s:
        try:
            leadership.tick()
            leadership.error = None
        except ApiError as error:
            leadership.error = error
        world.sleep(2.0)


@pytest.mark.parametrize("status", [403, 500])
def test_a_standby_whose_writes_fail_still_counts_the_time_without_a_leader(world, status):
    world.api.refuse(status, "PUT")
    world.api.refuse(status, "POST")
    leadership = standby(world, UNLED_S + 10)
    assert leadership.error is not None
    assert leadership.unled_s > UNLED_S


@pytest.mark.parametrize("status", [403, 500])
def test_a_missing_lease_that_nobody_may_create_has_no_leader(world, status):
    world.api.remove(LEASE, "faro")
    world.api.refuse(status, "POST")
    assert standby(world, UNLED_S + 10).unled_s > UNLED_S


def test_a_live_leader_is_seen_whatever_its_clock_says(world):
    world.leads, world.skew_s = True, -3600.0
    assert standby(world, 600).unled_s < 10


def test_an_outage_of_the_api_server_is_no_time_without_a_leader(world):
    """Nobody could renew, and the live leader may do so only after our first reading."""
    world.leads = True
    leadership = standby(world, 20)
    world.leads = False
    world.api.refuse(500, "GET")
    attempts(leadership, world, 600)
    assert leadership.unled_s == 0
    world.api.accept()
    world.api.refuse(403, "PUT")
    attempts(leadership, world, 2)
    assert leadership.unled_s <= LONGEST_GAP_S + 2


def test_a_standby_that_was_suspended_has_not_seen_that_nobody_led():
    watch = LeaseWatch().after(lease("leader"), 0.0)
    assert watch.unled_s(400.0) == 0
    assert watch.after(lease("leader"), 400.0).unled_s(400.0) <= LONGEST_GAP_S


@pytest.mark.parametrize("skew_s", [-360.0, 0.0, 360.0])
def test_under_a_live_leader_a_watch_ends_after_two_readings_at_any_skew(skew_s, world):
    world.leads, world.skew_s = True, skew_s
    assert seconds_unled(world.api, "jobs", "faro", 300.0) < 10
    assert world.reads == 2


@pytest.mark.parametrize("skew_s", [-360.0, 0.0, 360.0])
@pytest.mark.parametrize("exists", [True, False])
def test_a_lease_that_nobody_renews_is_watched_for_the_whole_time(skew_s, exists, world):
    world.skew_s = skew_s
    world.renew()
    if not exists:
        world.api.remove(LEASE, "faro")
    began_s = world.now_s
    assert seconds_unled(world.api, "jobs", "faro", 300.0) >= 300
    assert world.now_s - began_s >= 300


def test_a_watch_that_cannot_read_the_lease_ends_with_the_error(world):
    world.api.refuse(403, "GET")
    with pytest.raises(ApiError, match="403"):
        seconds_unled(world.api, "jobs", "faro", 300.0)


# --- identities -----------------------------------------------------------------------------------


def test_two_pods_of_one_host_never_share_an_identity(monkeypatch):
    """With hostNetwork, both have the node's host name, and in both Faro is process 1."""
    identities = set()
    monkeypatch.setattr(module.os, "getpid", lambda: 1)
    for uid in ("1f0c3a52-0000", "9b1e77aa-0000"):
        monkeypatch.setenv("HOSTNAME", "node-1")
        monkeypatch.setenv(POD_UID, uid)
        identities.add(candidate_identity())
    monkeypatch.delenv(POD_UID)
    for _ in range(2):  # pods of older manifests, in processes of their own
        module._random.cache_clear()
        identities.add(candidate_identity())
    assert len(identities) == 4
    assert candidate_identity() == candidate_identity(), (
        "a process keeps its identity when its settings change"
    )


def test_the_pod_of_a_holder_is_its_identity_up_to_the_last_dash(monkeypatch):
    monkeypatch.setenv(POD_NAME, "faro-controller-5d9-x7")
    monkeypatch.setenv(POD_UID, "1f0c3a52-44aa-4e0c-8d5c-2f0e3f5d8a11")
    assert candidate_identity().rpartition("-")[0] == "faro-controller-5d9-x7"
    monkeypatch.delenv(POD_UID)
    assert candidate_identity().rpartition("-")[0] == "faro-controller-5d9-x7"
