"""A change of settings stops nothing but itself: `faro run` on a fake API server.

Whatever is wrong with one job meanwhile, the others go on, and the lease is never released.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from api_world import ApiServer, Run
from kube_things import DEPLOYMENT, HPA, hpa, pod
from waiting import PATIENCE_S

from faro_lib.protocol import hold
from faro_ops.cli import main
from faro_ops.journal.reading import parts
from faro_ops.operate.controller import model as models
from faro_ops.operate.kube import job_checks
from faro_ops.operate.loop import settings_change

WAIT = pytest.mark.parametrize("options", [["--apply"], ["--apply", "--wait"]], ids=["", "wait"])
FAIR = {"a": 4, "b": 4, "c": 4}  # equal shares of twelve cores


@pytest.fixture
def server():
    return ApiServer({"a": 2, "b": 2, "c": 2})


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    monkeypatch.setattr(settings_change, "RETRY_S", 0.5)
    monkeypatch.setattr(job_checks, "RECHECK_S", 0.5)
    return Run(server, tmp_path, monkeypatch)


def never_released(server) -> bool:
    """Whether one holder has kept the lease from its first write to the end of the run."""
    *held, last = server.holders
    return len(set(held)) == 1 and held[0] != "" and last == ""


# --- one job's trouble, and a change --------------------------------------------------------------


@WAIT
def test_a_deployment_is_deleted_and_an_order_for_another_job_is_carried_out(server, run, options):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        del server.replicas["c"]
        run.order(a=2)
        run.until(lambda: server.replicas["a"] == 2)
        run.until(lambda: server.job("c").get("state") == "gone")
        assert server.job("c")["stateReason"] == "deployment 'jobs/c' does not exist"
        assert server.job("a")["reason"] == "override"
        server.replicas["c"] = 2
        run.until(lambda: server.job("c").get("state") == "fine")

    assert run.go(operate, *options) == 0
    assert never_released(server)


@WAIT
def test_a_job_gains_an_hpa_and_is_left_to_it_while_orders_for_others_hold(server, run, options):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        server.put(HPA, hpa("by-cpu", target="c"))
        server.replicas["c"] = 5
        run.order(a=1)
        run.until(lambda: server.replicas["a"] == 1)
        run.until(lambda: server.job("c").get("state") == "contested")
        reason = "is also scaled by HorizontalPodAutoscaler 'by-cpu'; delete it"
        assert server.job("c")["stateReason"] == f"deployment 'jobs/c' {reason}"
        seen = len(server.scaled)
        run.order(a=2)
        run.until(lambda: server.replicas["a"] == 2)
        assert server.replicas["c"] == 5
        assert "c" not in dict(server.scaled[seen:])
        server.remove(HPA, "by-cpu")
        run.until(lambda: server.replicas["c"] != 5, what="c is scaled again")

    assert run.go(operate, *options) == 0
    assert never_released(server)


@WAIT
def test_the_capacity_falls_below_the_minima_and_settings_still_change(server, run, options):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        run.edit({"a": {"min_replicas": 6}, "b": {"min_replicas": 6}, "c": {}})
        run.until(lambda: server.condition("MinimaKept").get("status") == "False")
        assert server.condition("MinimaKept")["message"].startswith("below min_replicas: ")
        run.edit({"a": {}, "b": {}, "c": {}})
        run.until(lambda: server.condition("MinimaKept").get("status") == "True")

    assert run.go(operate, *options) == 0
    assert never_released(server)


@WAIT
def test_an_order_ends_while_a_job_is_gone(server, run, options):
    def operate():
        run.order(a=2)
        run.until(lambda: server.replicas == {"a": 2, "b": 4, "c": 4})
        del server.replicas["c"]
        run.until(lambda: server.job("c").get("state") == "gone")
        until_s = time.time() + 2
        end = datetime.fromtimestamp(until_s, UTC).isoformat()
        (order,) = server.plan["spec"]["overrides"]
        server.order(order | {"until": end})
        run.until(lambda: time.time() > until_s and server.replicas["a"] > 2, what="a grows")

    assert run.go(operate, *options) == 0
    assert never_released(server)


@WAIT
def test_a_table_is_edited_while_a_job_is_gone(server, run, options):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        del server.replicas["c"]
        run.edit({"a": {"max_replicas": 3}, "b": {}, "c": {}})
        run.until(lambda: server.replicas["a"] == 3)

    assert run.go(operate, *options) == 0
    assert never_released(server)


@WAIT
def test_the_utc_offset_changes_while_a_job_is_gone_and_the_server_is_silent(
    server, run, options, monkeypatch
):
    times = []
    begin = models.at_time_of_day
    monkeypatch.setattr(models, "at_time_of_day", lambda *of: times.append(1) or begin(*of))

    def operate():
        run.until(lambda: server.replicas == FAIR)
        del server.replicas["c"]
        server.silent = True
        passes = len(times)
        monkeypatch.setenv("TZ", "XXX-5")
        time.tzset()
        run.until(lambda: len(times) > passes, what="a pass begins with the new time of day")
        server.silent = False
        ticks = len(server.holders)
        run.until(lambda: len(server.holders) > ticks, what="the lease is renewed")
        run.until(lambda: server.job("c").get("state") == "gone")

    try:
        assert run.go(operate, *options) == 0
    finally:
        monkeypatch.undo()
        time.tzset()
    assert never_released(server)


@WAIT
def test_an_api_server_that_is_silent_during_a_change_ends_nothing(server, run, options):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        server.silent = True
        run.edit({"a": {"max_replicas": 3}, "b": {}, "c": {}, "d": {}})
        run.until_it_says("cannot be reached")
        server.replicas["d"] = 1
        server.silent = False
        run.until(lambda: server.replicas["a"] == 3 and server.replicas["d"] > 1)

    assert run.go(operate, *options) == 0
    assert never_released(server)


# --- invalid entries of one job -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"queries": {}}, "deployment.queries.requests is missing"),
        ({"queries": {"requests": 5, "latency_mean_s": "y[$window]"}}, "requests=5 must be text"),
        ({"replicas": 3}, "unknown key 'deployment.replicas'"),
        ({"namespace": "kube-system"}, "belongs to Kubernetes itself"),
        ({"namespace": "other"}, "deployment.namespace='other' differs from 'jobs'"),
        ({"resource": "nvidia.com/gpu"}, "deployment.resource='nvidia.com/gpu' differs"),
        ({"name": "a"}, "its Deployment 'jobs/a' is that of job 'a'"),
        ("c", "deployment='c' must be a mapping"),
    ],
)
def test_an_invalid_section_of_one_job_holds_that_job_only(server, run, section, reason):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        seen = len(server.scaled)
        run.edit({"a": {"max_replicas": 3}, "b": {}, "c": {"deployment": section}})
        run.until(lambda: server.replicas["a"] == 3)
        run.until(lambda: server.job("c").get("state") == "misconfigured")
        assert reason in server.job("c")["stateReason"]
        assert server.replicas["c"] == 4
        assert "c" not in dict(server.scaled[seen:])
        run.edit({"a": {"max_replicas": 3}, "b": {}, "c": {}})
        run.until(lambda: server.job("c").get("state") == "fine")

    assert run.go(operate, "--apply") == 0
    assert never_released(server)


def test_a_missing_permission_on_one_deployment_is_named_and_holds_that_job_only(server, run):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        server.may = lambda asked: asked["name"] != "c"
        run.order(c=2, a=2)
        run.until(lambda: server.replicas["a"] == 2)
        run.until(lambda: server.job("c").get("state") == "misconfigured")
        right = "may not get deployments/scale.apps 'c' in namespace 'jobs'"
        assert server.job("c")["stateReason"].startswith(right)
        server.may = lambda asked: True
        run.until(lambda: server.replicas["c"] == 2)
        run.until(lambda: server.job("c").get("state") == "fine")

    assert run.go(operate, "--apply") == 0


# --- what is rejected -----------------------------------------------------------------------------


def test_a_bad_table_is_told_once_and_shown_until_it_is_good(server, run, capfd):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        good = run.table.read_text()
        run.write("- {job: a, slo_s: -1}\n")
        run.until(lambda: server.condition("SettingsAccepted").get("status") == "False")
        assert "slo_s" in server.condition("SettingsAccepted")["message"]
        run.until_ticks()
        run.write(good)
        run.until(lambda: server.condition("SettingsAccepted").get("status") == "True")
        assert server.replicas == FAIR

    assert run.go(operate, "--apply") == 0
    assert capfd.readouterr().err.count("faro: changes: ") == 1


def test_settings_whose_forecaster_cannot_be_fitted_change_nothing(server, run, monkeypatch, capfd):
    fitted = models.Source.model

    def fit(source, jobs):
        if len(jobs) != 3:
            raise KeyError("no such column")
        return fitted(source, jobs)

    monkeypatch.setattr(models.Source, "model", fit)

    def operate():
        run.until(lambda: server.replicas == FAIR)
        monkeypatch.setattr(
            models.Source, "model", lambda *_: 1 / 0
        )  # what ran is not fitted again
        run.edit({"a": {}, "b": {}})
        run.until(lambda: server.condition("SettingsAccepted").get("status") == "False")
        run.edit({"a": {}, "b": {}, "c": {}})
        run.until(lambda: server.condition("SettingsAccepted").get("status") == "True")
        run.order(a=2)
        run.until(lambda: server.replicas["a"] == 2)

    assert run.go(operate, "--apply") == 0
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert never_released(server)


def test_a_set_up_that_takes_minutes_delays_no_tick_beyond_its_patience(server, run, monkeypatch):
    monkeypatch.setattr(settings_change, "PATIENCE_S", 0.1)
    fitted = models.Source.model
    released = threading.Event()

    def slow(source, jobs):
        if len(jobs) == 2:
            released.wait(PATIENCE_S)
        return fitted(source, jobs)

    monkeypatch.setattr(models.Source, "model", slow)

    def operate():
        run.until(lambda: server.replicas == FAIR)
        run.edit({"a": {}, "b": {}})
        server.replicas["b"] = 1
        run.until(lambda: server.replicas["b"] == 4, what="b is restored by the running pass")
        released.set()
        run.until(lambda: not server.job("c"), what="the new settings are in use")

    assert run.go(operate, "--apply") == 0
    assert never_released(server)


@dataclass
class Keep:
    """A policy that changes nothing by itself."""

    name: str = "Keep"
    tick_s: float = 10.0

    def start(self, jobs):
        return None

    def decide(self, state, observation):
        return state, hold(observation)


@WAIT
def test_twenty_changes_move_no_other_job_and_never_release_the_lease(
    server, run, options, monkeypatch
):
    monkeypatch.setattr(models, "make", lambda name, context: Keep())

    def operate():
        run.until(lambda: server.job("a"))
        for n in range(20):
            target = 3 + n % 3
            run.order(a=target)
            run.until(lambda target=target: server.replicas["a"] == target)

    assert run.go(operate, *options) == 0
    assert [name for name, _ in server.scaled] == ["a"] * 20
    assert never_released(server)


# --- the start ------------------------------------------------------------------------------------


def test_a_start_beside_a_job_that_is_gone_runs(server, run):
    del server.replicas["c"]

    def operate():
        run.until(lambda: server.job("c").get("state") == "gone")
        run.until(lambda: server.replicas["a"] > 2)

    run.edit({"a": {}, "b": {}, "c": {}})
    assert run.go(operate, "--apply") == 0


def test_a_start_below_the_minima_runs_and_says_who_is_below(server, run, capfd):
    run.edit({"a": {"min_replicas": 20}, "b": {}, "c": {}})

    def operate():
        run.until(lambda: server.condition("MinimaKept").get("status") == "False")

    assert run.go(operate, "--apply") == 0
    told = "below their minimum: a"
    assert told in capfd.readouterr().err


def set_cpu(server, cpu):
    """What the pods of each Deployment are to request."""
    for job in "abc":
        server.change(DEPLOYMENT, job, spec={"template": pod("template", cpu)})


def test_a_start_at_which_no_job_can_be_scaled_ends_in_one_line_or_waits(server, run, capfd):
    set_cpu(server, "2")
    assert run.go(run.until_it_ends, "--apply") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "job 'a': cores=1 is less than the 2 cpu that its pods request" in line
    assert "(and 2 more jobs)" in line


def test_with_wait_a_start_waits_for_a_job_that_can_be_scaled(server, run, capfd):
    set_cpu(server, "2")

    def operate():
        run.until_it_says("waiting: job 'a': cores=1")
        assert server.holders == [], "nothing is changed"
        set_cpu(server, "1")
        run.until(lambda: server.replicas == FAIR)

    assert run.go(operate, "--apply", "--wait") == 0
    assert "waiting: job 'a': cores=1 is less than" in capfd.readouterr().err


def test_with_wait_a_start_waits_for_a_silent_api_server(server, run, capfd):
    server.silent = True

    def operate():
        run.until_it_says("waiting: ")
        server.silent = False
        run.until(lambda: server.replicas == FAIR)

    assert run.go(operate, "--apply", "--wait") == 0
    assert "waiting: https://faro.test cannot be reached" in capfd.readouterr().err


@pytest.mark.parametrize("options", [[], ["--wait"]], ids=["", "wait"])
@pytest.mark.parametrize("resource", ["leases", "faroplans"])
def test_without_a_permission_on_the_lease_or_plan_the_start_ends(
    server, run, options, resource, capfd
):
    server.may = lambda asked: asked["resource"] != resource
    assert run.go(run.until_it_ends, "--apply", *options) == 2
    assert f"may not create {resource}." in capfd.readouterr().err


# --- what is recorded -----------------------------------------------------------------------------


def test_faro_explain_shows_what_was_wrong_with_a_job_at_the_tick(server, run, capsys):
    server.put(HPA, hpa("by-cpu", target="c"))

    def operate():
        run.until(lambda: server.job("c").get("state") == "contested")
        run.until(lambda: server.replicas["a"] > 2)

    assert run.go(operate, "--apply") == 0
    capsys.readouterr()
    journal = str(run.folder / "j")
    assert main(["explain", journal]) == 0
    reason = "deployment 'jobs/c' is also scaled by HorizontalPodAutoscaler 'by-cpu'; delete it"
    assert f"job 'c' is contested: {reason}" in capsys.readouterr().out
    _, ticks = parts(journal)[-1]
    troubled = {job: (now.state, now.reason) for job, now in ticks[-1].troubled.items()}
    assert troubled == {"c": ("contested", reason)}


def test_jobs_that_left_the_table_are_forgotten_by_the_board(server, run):
    def operate():
        run.until(lambda: server.replicas == FAIR)
        del server.replicas["c"]
        run.until(lambda: server.condition("JobsFine").get("status") == "False")
        assert server.condition("JobsFine")["message"].startswith("c: gone: ")
        run.edit({"a": {}, "b": {}})
        run.until(lambda: server.condition("JobsFine").get("status") == "True")

    assert run.go(operate, "--apply") == 0
