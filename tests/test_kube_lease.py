"""Leadership: of several controllers one acts, and never two."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faro_lib.kube.lease import NOBODY, Candidate, LeaseTimings, observe, written

TERMS = LeaseTimings(duration_s=10, retry_period_s=2, renew_deadline_s=8)


def lease(holder, renewed="1", lasts_s=10):
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": lasts_s}}


def test_a_lease_that_was_given_back_is_taken_at_once():
    assert observe(Candidate("me"), lease(""), now_s=0)[1] == "me"


def test_a_lease_that_is_renewed_stays_with_its_holder_forever():
    me = Candidate("me")
    for second in range(100):
        me, name = observe(me, lease("other", str(second)), second)
        assert name is None


def test_a_lease_that_is_not_renewed_is_taken_after_it_has_run_out_by_our_own_clock():
    me, name = observe(Candidate("me"), lease("other"), 100)
    assert name is None, "it may have been renewed just now"
    assert observe(me, lease("other"), 110)[1] is None
    assert observe(me, lease("other"), 110.1)[1] == "me"


def test_the_clock_of_the_holder_does_not_matter():
    """Its renewTime may be hours off: what counts is when we saw it change."""
    me, _ = observe(Candidate("me"), lease("other", "1970-01-01T00:00:00Z"), 0)
    assert observe(me, lease("other", "1970-01-01T00:00:02Z"), 9)[1] is None


def test_a_lease_that_has_vanished_is_nobodys_until_it_would_have_run_out():
    me, name = observe(Candidate("me"), None, 0, TERMS)
    assert name == NOBODY, "who held it may not know yet"
    me, name = observe(me, lease(NOBODY), 1, TERMS)
    assert name is None
    assert observe(me, lease(NOBODY), 11.1, TERMS)[1] == "me"


def test_a_holder_takes_the_lease_back_that_vanished_while_it_led():
    me = written(Candidate("me"), TERMS, sent_s=0)
    assert observe(me, None, 1, TERMS)[1] == "me"
    assert observe(me, lease(NOBODY), 7.9, TERMS)[1] == "me"
    assert observe(me, lease(NOBODY), 8, TERMS)[1] is None, "it has ceased to lead, and waits like everyone"


def test_a_lease_that_vanishes_twice_between_two_looks_is_waited_out_anew():
    me, _ = observe(Candidate("me"), None, 0, TERMS)
    assert observe(me, None, 11, TERMS)[1] == NOBODY, "another may have written it at 1, and lead until 9"


def test_a_holder_rests_before_its_lease_runs_out_counted_from_when_it_sent_the_renewal():
    me = written(Candidate("me"), TERMS, sent_s=50)
    assert me.is_leader(57.9)
    assert not me.is_leader(58)


def test_terms_that_leave_no_time_to_renew_are_refused():
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


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_two_candidates_never_lead_at_once_however_slow_their_requests_and_whoever_wipes_the_server(data):
    """Requests may take any time on their way there and back, may be lost, and the server may forget everything."""
    server, stamp = Server(), itertools.count()
    candidates = {"a": Candidate("a"), "b": Candidate("b")}
    busy: dict[str, list] = {"a": [], "b": []}
    for now in range(120):
        if data.draw(st.integers(0, 60), "wipe") == 0:
            server.lease, server.version = None, server.version + 1
        for name in candidates:
            steps = busy[name]
            if not steps and data.draw(st.booleans(), "attempts"):
                steps += ["read", "send"]
            elif steps and data.draw(st.booleans(), "proceeds"):
                if steps[0] == "read":
                    seen, version = server.lease, server.version
                    candidates[name], holder = observe(candidates[name], seen, now, TERMS)
                    busy[name] = [(holder, version, now), "answer"] if holder else []
                else:
                    holder, version, sent_s = steps[0]
                    done = server.write(lease(holder, str(next(stamp))), version)
                    if done and data.draw(st.booleans(), "answered") and holder != NOBODY:
                        candidates[name] = written(candidates[name], TERMS, sent_s)
                    busy[name] = []
        assert sum(one.is_leader(now) for one in candidates.values()) <= 1
