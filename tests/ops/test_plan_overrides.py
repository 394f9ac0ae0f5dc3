"""`faro set --plan`: overrides in the FaroPlan, for controllers in Kubernetes."""

import time

import pytest

from faro_ops import cli
from faro_ops.controller.overrides import Watched
from faro_ops.kube.client import ApiError
from faro_ops.kube.operate import NamespacedName
from faro_ops.kube.plan_overrides import PlanOverrides

NOW_S = time.time()


class FakeApi:
    """Keeps one FaroPlan and merges what is sent to it, as the API server does."""

    def __init__(self, plan=None, status=404):
        self.plan = plan
        self.status = status

    def get(self, path):
        if self.plan is None:
            raise ApiError(self.status, f"GET {path}: {self.status}")
        return self.plan

    def send(self, method, path, body, kind):
        if self.plan is None:
            raise ApiError(self.status, f"{method} {path}: {self.status}")
        self.plan["spec"] |= body["spec"]
        return self.plan


@pytest.fixture
def api(monkeypatch):
    jobs = [{"name": "a", "desiredReplicas": 3}, {"name": "b", "desiredReplicas": 1}]
    fake = FakeApi({"spec": {"policy": "Faro-Sum"}, "status": {"jobs": jobs}})
    monkeypatch.setattr(NamespacedName, "connect", lambda self, **_: fake)
    return fake


@pytest.fixture
def watched(api, tmp_path):
    (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
    return Watched(tmp_path / "jobs.yaml", PlanOverrides(api, "faro", "faro").read)


def set_job(*words) -> int:
    return cli.main(["set", *words, "--plan", "faro/faro"])


def test_a_count_that_is_set_in_the_plan_is_in_force_at_the_next_tick_until_it_is_cleared(
    api, watched
):
    assert set_job("a", "--replicas", "5") == 0
    assert watched.new().jobs[0].max_replicas == 5
    assert api.plan["spec"]["policy"] == "Faro-Sum"
    assert api.plan["spec"]["overrides"][0]["by"]
    assert set_job("a", "--clear") == 0
    assert watched.new().fixed == ()


def test_a_frozen_job_keeps_the_replicas_of_the_last_decision(api, watched):
    assert set_job("a", "--freeze", "--until", "2099-01-01T00:00") == 0
    assert watched.new().jobs[0].min_replicas == 3


def test_an_event_is_read_as_it_was_written(api, watched):
    assert (
        set_job("b", "--load", "3", "--from", "2099-01-01T14:00", "--until", "2099-01-01T16:00")
        == 0
    )
    (event,) = watched.new().events
    assert (event.job, event.load) == ("b", 3.0)
    assert event.from_s == time.mktime((2099, 1, 1, 14, 0, 0, 0, 0, -1))
    assert event.until_s - event.from_s == 7200


def test_what_is_written_by_hand_may_omit_times_and_author(api, watched):
    api.plan["spec"]["overrides"] = [{"job": "a", "replicas": 2}]
    assert watched.new().fixed_jobs == ("a",)


@pytest.mark.parametrize(
    "row",
    [
        {"replicas": 2},
        {"job": "a"},
        {"job": "a", "replicas": 0},
        {"job": "a", "replicas": 1, "until": "noon"},
        3,
    ],
)
def test_a_wrong_override_is_reported_once_and_the_settings_stay(api, watched, row):
    api.plan["spec"]["overrides"] = [row]
    with pytest.raises(ValueError, match=r"FaroPlan 'faro/faro': spec\.overrides: "):
        watched.new()
    assert watched.new() is None


@pytest.mark.parametrize("status", [403, 404])
def test_without_a_plan_there_are_no_overrides(api, watched, status):
    api.plan = None
    api.status = status
    assert watched.new() is None


def test_while_the_api_server_is_away_the_settings_stay_and_it_is_said_once(api, watched):
    assert set_job("a", "--replicas", "5") == 0
    assert watched.new().fixed_jobs == ("a",)
    plan = api.plan
    api.plan = None
    api.status = 0
    with pytest.raises(OSError):
        watched.new()
    assert watched.new() is None
    assert watched.known.fixed_jobs == ("a",)
    api.plan = plan
    assert watched.new() is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ("c", "--replicas", "2", "--plan", "faro/faro"),
            "job='c' is not in faro/faro; accepted: a, b",
        ),
        (("a", "--replicas", "2"), "needs one of --journal and --plan"),
        (
            ("a", "--replicas", "2", "--plan", "faro/faro", "--journal", "j"),
            "needs one of --journal and --plan",
        ),
    ],
)
def test_a_wrong_command_is_one_line(api, capsys, words, reason):
    assert cli.main(["set", *words]) == 2
    assert reason in capsys.readouterr().err


def test_a_plan_that_no_controller_has_made_is_one_line(api, capsys):
    api.plan = None
    assert set_job("a", "--replicas", "2") == 2
    assert "FaroPlan 'faro/faro' does not exist" in capsys.readouterr().err
