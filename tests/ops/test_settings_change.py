"""Changed settings are set up beside those that run; a failed set-up changes nothing."""

from __future__ import annotations

import threading

import pytest
from waiting import PATIENCE_S, until

from faro_ops.operate.loop import settings_change
from faro_ops.operate.loop.settings_change import SettingsChange
from faro_ops.operate.startup import ConfigurationError, until_passed


class Changes:
    """A `SettingsChange` whose set-ups answer as the test says, and what it reports."""

    def __init__(self, set_up):
        self.told: list[str] = []
        self.discarded: list[str] = []
        self.begun: list[str] = []

        def noted(settings):
            self.begun.append(settings)
            return set_up(settings)

        self.change = SettingsChange(noted, self.discarded.append, self.told.append)


def failing(error):
    def set_up(settings):
        raise error

    return set_up


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(settings_change, "PATIENCE_S", 0.0)


def test_a_set_up_that_ends_soon_is_ready_at_once_and_only_once():
    change = Changes(str.upper).change
    change.want("a")
    assert change.ready() == "A"
    assert change.ready() is None


def test_a_long_set_up_is_not_waited_for(impatient):
    released = threading.Event()
    changes = Changes(lambda settings: released.wait(PATIENCE_S) and settings)
    changes.change.want("a")
    assert changes.change.ready() is None
    released.set()
    assert until(changes.change.ready) == "a"


def test_a_set_up_that_other_settings_have_replaced_is_discarded(impatient):
    released = threading.Event()
    changes = Changes(lambda settings: released.wait(PATIENCE_S) and settings)
    changes.change.want("a")
    changes.change.ready()
    changes.change.want("b")
    assert changes.change.ready() is None
    released.set()
    assert until(changes.change.ready) == "b"
    assert (changes.begun, changes.discarded) == (["a", "b"], ["a"])


def test_a_set_up_is_discarded_if_what_runs_is_wanted_again(impatient):
    released = threading.Event()
    changes = Changes(lambda settings: released.wait(PATIENCE_S) and settings)
    changes.change.want("a")
    changes.change.ready()
    changes.change.want(None)
    released.set()

    def discarded():
        assert changes.change.ready() is None
        return changes.discarded

    assert until(discarded) == ["a"]


@pytest.mark.parametrize(
    ("error", "attempts"), [(ConnectionError("no answer"), 3), (ValueError("slo_s=-1"), 1)]
)
def test_what_may_pass_by_itself_is_tried_again_and_a_mistake_at_the_next_change(
    error, attempts, monkeypatch
):
    monkeypatch.setattr(settings_change, "RETRY_S", 0.0)
    changes = Changes(failing(error))
    changes.change.want("a")
    for _ in range(3):
        assert changes.change.ready() is None
    assert changes.begun == ["a"] * attempts
    assert changes.told == [str(error)], "told once"
    assert changes.change.rejected.reason == str(error)


def test_the_rejection_keeps_its_time_until_other_settings_are_accepted():
    changes = Changes(lambda settings: settings if settings == "good" else 1 / 0)
    changes.change.want("bad")
    changes.change.ready()
    first = changes.change.rejected
    assert first.reason == "ZeroDivisionError: division by zero"
    changes.change.want("worse")
    changes.change.ready()
    assert changes.change.rejected.since_s == first.since_s
    changes.change.want("good")
    assert changes.change.ready() == "good"
    assert changes.change.rejected is None


def test_with_wait_a_start_waits_for_what_may_pass_and_not_for_a_mistake():
    problems = [ConnectionError("no answer"), ValueError("no ready worker")]
    told = []

    def check():
        if problems:
            raise problems.pop(0)

    ensure = until_passed(threading.Event(), told.append, retry_s=0.0)
    ensure(check)
    assert told == ["no answer", "no ready worker", None]
    problems.append(ConfigurationError("the API server does not know faroplans"))
    with pytest.raises(ConfigurationError, match="does not know faroplans"):
        ensure(check)
