"""`faro set --plan`: overrides in the FaroPlan, for controllers in Kubernetes."""

import threading
import time

import pytest
from kube_api import KubeApi
from kube_things import FAROPLAN, object_path
from waiting import PATIENCE_S

from faro_ops import cli
from faro_ops.operate.kube import conflicts
from faro_ops.operate.kube.operate import NamespacedName
from faro_ops.operate.kube.plan_overrides import PlanOverrides
from faro_ops.operate.memory.overrides import LastKnown, Override, Watched

NOW_S = time.time()


@pytest.fixture
def api(monkeypatch):
    jobs = [{"name": "a", "desiredReplicas": 3}, {"name": "b", "desiredReplicas": 1}]
    fake = KubeApi(namespace="faro")
    fake.plan = {"spec": {"policy": "Faro-Sum"}, "status": {"jobs": jobs}}
    monkeypatch.setattr(NamespacedName, "connect", lambda self, **_: fake)
    return fake


@pytest.fixture
def watched(api, tmp_path):
    (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
    orders = LastKnown(PlanOverrides(api, "faro", "faro").read)
    return Watched(tmp_path / "jobs.yaml", orders)


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
    assert watched.new().jobs[0].max_replicas == 3


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
    api.order({"job": "a", "replicas": 2})
    assert watched.new().fixed_jobs == ("a",)


BAD_ROWS = [
    ({"replicas": 2}, "it names no job"),
    ({"job": "b"}, "either replicas or load"),
    ({"job": "b", "replicas": 2, "load": 2.0}, "either replicas or load"),
    ({"job": "b", "replicas": 0}, "replicas=0 must be a whole number"),
    ({"job": "b", "replicas": True}, "replicas=True must be a whole number"),
    ({"job": 7, "replicas": 1}, "job=7 must be text"),
    ({"job": "b", "replicas": 1, "until": "noon"}, "until='noon' must be a date and time"),
    ({"job": "b", "replicas": 1, "from": 3}, "from=3 must be a date and time"),
    (
        {
            "job": "b",
            "replicas": 1,
            "from": "2026-01-02T00:00:00Z",
            "until": "2026-01-01T00:00:00Z",
        },
        "ends before it begins",
    ),
    ({"job": "b", "load": "3"}, "load='3' must be a number > 0"),
    ({"job": "*", "replicas": 2}, "stands for all jobs, which can only be frozen"),
    ({"job": "gone", "replicas": 2}, "no such job in the jobs' table"),
    (3, "it must be a mapping with a job"),
]


class TestABadOrder:
    @pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
    def test_it_does_not_stop_a_start_nor_the_other_orders(self, api, tmp_path, row, reason):
        api.order(row, {"job": "a", "replicas": 2})
        (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
        settings = Watched(tmp_path / "jobs.yaml", PlanOverrides(api, "faro", "faro").read).known
        assert settings.fixed_jobs == ("a",)
        (rejected,) = settings.rejected
        assert reason in rejected.reason
        assert str(rejected).isprintable()

    @pytest.mark.parametrize(("row", "reason"), BAD_ROWS)
    def test_it_is_said_once(self, api, watched, row, reason):
        before = watched.known
        api.order(row)
        (line,) = before.changes(watched.new())
        assert line.startswith("not in force: ")
        assert reason in line
        assert watched.new() is None

    def test_it_stays_in_the_plan_when_another_order_is_set_and_goes_when_its_job_is_cleared(
        self, api
    ):
        bad = {"job": "gone", "replicas": 2, "load": 3.0}
        api.order(bad)
        assert set_job("a", "--replicas", "5") == 0
        assert api.plan["spec"]["overrides"][0] == bad
        assert set_job("gone", "--clear") == 0
        assert [row["job"] for row in api.plan["spec"]["overrides"]] == ["a"]

    def test_overrides_that_are_no_list_end_no_order(self, api, watched):
        assert set_job("a", "--replicas", "5") == 0
        watched.new()
        api.change(FAROPLAN, "faro", "faro", spec={"overrides": None})
        api.change(FAROPLAN, "faro", "faro", spec={"overrides": {"a": 5}})
        with pytest.raises(OSError, match="must be a list; the orders last known stay in force"):
            watched.new()
        assert watched.known.fixed_jobs == ("a",)


class TestAPlanThatCannotBeRead:
    @pytest.mark.parametrize("status", [403, 500, 0])
    def test_the_orders_last_known_stay_and_it_is_said_once(self, api, watched, status):
        assert set_job("a", "--replicas", "5") == 0
        assert watched.new().fixed_jobs == ("a",)
        api.refuse(status)
        with pytest.raises(OSError, match=f"{status}; the orders last known stay in force"):
            watched.new()
        assert watched.new() is None
        assert watched.known.fixed_jobs == ("a",)
        api.accept()
        assert watched.new() is None

    def test_a_controller_starts_without_orders_says_so_and_asks_again(self, api, tmp_path):
        api.order({"job": "a", "replicas": 2})
        api.refuse(403)
        (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
        orders = LastKnown(PlanOverrides(api, "faro", "faro").read)
        watched = Watched(tmp_path / "jobs.yaml", orders)
        assert watched.known.fixed == ()
        with pytest.raises(OSError, match="403; no order is known yet, and each tick asks again"):
            watched.new()
        api.accept()
        assert watched.new().fixed_jobs == ("a",)

    def test_errors_with_changing_texts_are_said_once_per_outage(self, api, watched):
        api.refuse(403)
        with pytest.raises(OSError):
            watched.new()
        api.refuse(500)
        assert watched.new() is None

    def test_without_a_plan_there_are_no_orders_if_none_were_known(self, api, watched):
        api.plan = None
        assert watched.new() is None
        assert watched.known.fixed == ()

    def test_a_deleted_plan_ends_no_order(self, api, watched):
        assert set_job("a", "--replicas", "5") == 0
        watched.new()
        api.plan = None
        assert watched.new() is None
        assert watched.known.fixed_jobs == ("a",)

    def test_in_a_dry_run_a_plan_that_was_created_again_ends_no_order_until_an_operator_does(
        self, api, watched
    ):
        assert set_job("a", "--replicas", "5") == 0
        watched.new()
        api.plan = created_again(api)
        with pytest.raises(OSError, match="created again without its orders"):
            watched.new()
        assert watched.known.fixed_jobs == ("a",)
        assert set_job("a", "--clear") == 0
        assert watched.new().fixed == ()


def created_again(api):
    """The FaroPlan as a controller creates it again after somebody has deleted it."""
    status = api.plan["status"]
    return {"metadata": {"uid": "2"}, "spec": {"policy": "Faro-Sum"}, "status": status}


class TestADeletedPlan:
    """A controller that has read its orders writes them back."""

    @pytest.fixture
    def store(self, api):
        return lambda: PlanOverrides(api, "faro", "faro", restores=True)

    def test_its_orders_are_written_into_the_next_one_once_and_one_line_says_it(
        self, api, store, caplog
    ):
        assert set_job("a", "--replicas", "5") == 0
        orders = store()
        assert [one.replicas for one in orders.read().valid] == [5]
        rows = api.plan["spec"]["overrides"]
        api.plan = created_again(api)
        for _ in range(2):
            assert [one.replicas for one in orders.read().valid] == [5]
        assert api.plan["spec"] == {"policy": "Faro-Sum", "overrides": rows}
        assert caplog.messages == ["FaroPlan 'faro/faro': it was deleted; 1 order written back"]

    def test_a_controller_that_starts_while_it_is_gone_gets_them_back_from_the_other_one(
        self, api, store
    ):
        assert set_job("a", "--replicas", "5") == 0
        standby = store()
        standby.read()
        plan = created_again(api)
        api.plan = None
        started = store()
        assert started.read() is None
        api.plan = plan
        assert started.read().valid == ()
        assert [one.replicas for one in standby.read().valid] == [5]
        assert [one.replicas for one in started.read().valid] == [5]

    def test_an_order_that_was_cleared_before_is_not_revived_by_another_controller(
        self, api, store
    ):
        assert set_job("a", "--replicas", "5") == 0
        standby = PlanOverrides(api, "faro", "faro", restores=True)
        standby.read()
        assert set_job("a", "--clear") == 0
        leader = store()
        leader.read()
        api.plan = created_again(api)
        leader.read()
        assert api.plan["spec"]["overrides"] == []
        assert standby.read().valid == ()

    def test_orders_that_somebody_has_given_since_are_not_overwritten(self, api, store):
        assert set_job("a", "--replicas", "5") == 0
        orders = store()
        orders.read()
        api.plan = created_again(api)
        assert set_job("b", "--replicas", "1") == 0
        assert [one.job for one in orders.read().valid] == ["b"]

    def test_without_the_permission_they_stay_in_force_and_one_line_says_so(self, api, store):
        assert set_job("a", "--replicas", "5") == 0
        orders = LastKnown(store().read)
        orders()
        api.plan = created_again(api)
        api.refuse(403, "PATCH")
        given = orders()
        assert [one.replicas for one in given.valid] == [5]
        path = object_path(FAROPLAN, "faro", "faro")
        assert f"created again without its orders (PATCH {path}: 403)" in given.problems[0]


def test_orders_that_two_people_set_at_once_are_both_kept(api, monkeypatch):
    monkeypatch.setattr(conflicts, "PAUSE_S", 0.01)
    barrier = threading.Barrier(2)
    read = api.get

    def read_together(path):
        plan = read(path)
        if threading.current_thread() is not threading.main_thread():
            with_the_other = plan["spec"].get("overrides") is None
            if with_the_other:
                barrier.wait(PATIENCE_S)
        return plan

    monkeypatch.setattr(api, "get", read_together)

    def order(job):
        store = PlanOverrides(api, "faro", "faro")
        store.change(adds=Override(job=job, by="me", from_s=NOW_S, replicas=2))

    threads = [threading.Thread(target=order, args=(job,)) for job in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["job"] for row in api.plan["spec"]["overrides"]) == ["a", "b"]


def test_a_plan_that_always_changes_is_one_line(api, monkeypatch, capsys):
    monkeypatch.setattr(conflicts, "PAUSE_S", 0.0)
    api.busy = 1000
    assert set_job("a", "--replicas", "2") == 2
    assert "it changes faster than orders can be written; try again" in capsys.readouterr().err


class TestFreezingAJobUnderItsAutoscaler:
    """`desiredReplicas` is then maxReplicas of the HPA."""

    def test_it_keeps_the_replicas_that_the_hpa_asks_for(self, api):
        api.change(
            FAROPLAN,
            "faro",
            "faro",
            status={
                "jobs": [
                    {"name": "a", "desiredReplicas": 12, "readyReplicas": 0, "requestedReplicas": 4}
                ]
            },
        )
        assert set_job("a", "--freeze") == 0
        assert [row["replicas"] for row in api.plan["spec"]["overrides"]] == [4]

    def test_without_a_replica_it_is_refused_instead_of_scaled_to_the_maximum(self, api, capsys):
        api.change(
            FAROPLAN,
            "faro",
            "faro",
            status={
                "jobs": [
                    {"name": "a", "desiredReplicas": 12, "readyReplicas": 0, "requestedReplicas": 0}
                ]
            },
        )
        assert set_job("a", "--freeze") == 2
        assert "job 'a': it has no replica; name a number" in capsys.readouterr().err
        assert "overrides" not in api.plan["spec"]


def test_a_job_that_is_not_in_the_plan_is_named_with_those_that_are(api, capsys):
    assert cli.main(["set", "c", "--replicas", "2", "--plan", "faro/faro"]) == 2
    assert "job='c' is not in faro/faro; accepted: a, b" in capsys.readouterr().err


def test_a_plan_that_no_controller_has_made_is_one_line(api, capsys):
    api.plan = None
    assert set_job("a", "--replicas", "2") == 2
    assert "FaroPlan 'faro/faro' does not exist" in capsys.readouterr().err


def test_a_plan_that_may_not_be_read_is_one_line(api, capsys):
    api.refuse(403)
    assert set_job("a", "--replicas", "2") == 2
    assert "faroplans/faro: 403" in capsys.readouterr().err
