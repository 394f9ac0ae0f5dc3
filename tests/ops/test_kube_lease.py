"""Leader election: at most one of several controllers acts."""

from __future__ import annotations

import itertools
import random

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from faro_ops.kube.lease import NOBODY, Candidate, LeaseTimings, observe, written

TIMINGS = LeaseTimings(duration_s=10, retry_period_s=2, renew_deadline_s=8)


def lease(holder, renewed="1", lasts_s=10):
    return {
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": lasts_s}
    }


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
