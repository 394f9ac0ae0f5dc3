"""HPAs get their own bounds back, from a standby, a CronJob or `faro restore`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import yaml
from kube_api import ClusterApi
from kube_things import HPA, LEASE, Measured, lease, object_path, objects
from test_kube_ceilings import (
    QUERIES,
    REFS,
    applied,
    two_services,
)

from faro_ops import cli
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.hpa_bounds import NOTE, BoundedDeployments, BoundsNote, restore
from faro_ops.operate.kube.manifests import ManifestSpec, write
from faro_ops.operate.kube.operate import NamespacedName, restore_unled

ORIGINAL = {"a": (1, 4), "b": (1, 4)}
FORBIDDEN = f"PATCH {object_path(HPA, 'a')}: 403"


def lines(outcomes) -> list[str]:
    return [str(one) for one in outcomes]


def bounded(plan="jobs/faro", bounds=((1, 4), (1, 4))) -> ClusterApi:
    """A server with two HPAs on which the controller of `plan` has set the bounds 3-6 and 1-2."""
    server = two_services(bounds=bounds)
    clock = Clock.starting_now()
    cluster = BoundedDeployments(server, REFS, Measured(0.0, 0.0), clock, 8.0, owner=plan)
    applied(server, [6, 2], [3, 1], cluster)
    return server


# --- which HPAs -----------------------------------------------------------------------------------


def test_the_original_bounds_are_kept_once_and_restored():
    server = two_services(bounds=((2, 5), (1, 3)))
    applied(server, [3, 4], [1, 2])
    applied(server, [4, 2], [1, 1])
    assert BoundsNote.of(server.find(HPA, "a")) == BoundsNote((2, 5), (1, 4))
    restored = restore(server, server.all(HPA))
    assert lines(restored) == ["jobs/a: bounds 2-5 restored", "jobs/b: bounds 1-3 restored"]
    assert server.bounds() == {"a": (2, 5), "b": (1, 3)}
    assert NOTE not in server.find(HPA, "a")["metadata"]["annotations"]
    assert restore(server, server.all(HPA)) == [], "an operator's later bounds stay"


@pytest.mark.parametrize(
    "change", [{"maxReplicas": 9}, {"minReplicas": 2}, {"minReplicas": 5, "maxReplicas": 9}]
)
def test_bounds_that_an_operator_has_changed_since_are_left_unless_forced(change):
    server = bounded()
    server.change(HPA, "a", spec=change)
    low, high = server.bounds()["a"]
    first, second = restore(server, server.all(HPA))
    assert str(first) == (
        f"jobs/a: left at {low}-{high}, because another client has changed Faro's 3-6; "
        "`faro restore --force` restores 1-4"
    )
    assert not first.failed
    assert str(second) == "jobs/b: bounds 1-4 restored"
    assert server.bounds() == {"a": (low, high), "b": (1, 4)}
    assert lines(restore(server, server.all(HPA), force=True)) == ["jobs/a: bounds 1-4 restored"]
    assert server.bounds() == ORIGINAL


def test_bounds_that_an_operator_changes_meanwhile_are_left():
    server = bounded()
    seen = server.all(HPA)
    server.change(HPA, "a", spec={"maxReplicas": 9})
    first, _ = restore(server, seen)
    assert str(first).startswith("jobs/a: left at 3-9")
    assert server.bounds()["a"] == (3, 9)


def test_a_status_that_changes_meanwhile_does_not_hinder():
    server = bounded()
    server.busy = 1
    assert "jobs/a: bounds 1-4 restored" in lines(restore(server, server.all(HPA)))
    assert server.bounds() == ORIGINAL


def test_bounds_that_an_operator_has_restored_by_hand_only_lose_their_note():
    server = bounded()
    server.change(HPA, "a", spec={"minReplicas": 1, "maxReplicas": 4})
    assert lines(restore(server, server.all(HPA)))[0] == "jobs/a: bounds 1-4 restored"
    assert NOTE not in server.find(HPA, "a")["metadata"]["annotations"]


def test_hpas_of_another_controller_in_the_namespace_are_left_alone():
    server = bounded(plan="jobs/other")
    assert restore(server, server.all(HPA), plan="jobs/faro") == []
    assert server.bounds() == {"a": (3, 6), "b": (1, 2)}
    assert len(restore(server, server.all(HPA), plan="jobs/other")) == 2


def test_an_autoscaler_that_cannot_be_restored_is_named_and_the_others_are_restored():
    server = bounded()
    server.refuse(403, "PATCH", "/horizontalpodautoscalers/a")
    first, second = restore(server, server.all(HPA))
    assert first.failed
    assert str(first) == f"jobs/a: not restored: {FORBIDDEN}"
    assert (str(second), second.failed) == ("jobs/b: bounds 1-4 restored", False)
    assert server.bounds() == {"a": (3, 6), "b": (1, 4)}


DAMAGED = [
    "",
    "[1, 4]",
    "{}",
    '{"original": [1], "written": [3, 6], "plan": ""}',
    '{"original": [1, Infinity], "written": [3, 6], "plan": ""}',
    "\N{SNOWMAN}" * 500,
    "[" * 100_000,
]


@pytest.mark.parametrize("note", DAMAGED, ids=lambda note: note[:20])
def test_a_damaged_note_is_named_and_the_others_are_restored(note):
    server = bounded()
    server.change(HPA, "a", metadata={"annotations": {NOTE: note}})
    first, second = restore(server, server.all(HPA))
    assert first.failed
    assert str(first).startswith(f"jobs/a: not restored: its annotation {NOTE} is damaged: ")
    assert len(str(first)) < 300
    assert str(second) == "jobs/b: bounds 1-4 restored"


# --- from a standby -------------------------------------------------------------------------------


@pytest.mark.parametrize(("unled_s", "bounds"), [(301.0, (1, 4)), (299.0, (1, 6))])
def test_a_standby_restores_the_bounds_if_nobody_has_led_for_five_minutes(unled_s, bounds):
    server, said = two_services(), []
    cluster = applied(server, [6, 2])
    restore_unled(server, cluster, SimpleNamespace(unled_s=unled_s), said.append)
    assert server.bounds()["a"] == bounds
    expected = ["nobody has led for 300 s: jobs/a: bounds 1-4 restored"]
    assert (said[:1] == expected) is (unled_s > 300)


def test_a_standby_survives_an_api_server_that_does_not_answer():
    cluster = applied(two_services(), [6, 2])
    cluster.autoscalers = lambda: (_ for _ in ()).throw(ApiError(0, "no answer"))
    restore_unled(two_services(), cluster, SimpleNamespace(unled_s=301.0), print)


# --- by `faro restore` ----------------------------------------------------------------------------


@pytest.fixture
def faro_restore(monkeypatch, capsys):
    """Runs `faro restore` on a server; returns the exit status and the lines that it prints."""
    monkeypatch.setattr(preflight, "check_server", lambda api: None)

    def run(server, *options):
        monkeypatch.setattr(NamespacedName, "connect", lambda self: server)
        status = cli.main(["restore", "--plan", "jobs/faro", *options])
        return status, capsys.readouterr().err.splitlines()

    return run


@pytest.fixture
def watched(monkeypatch):
    """Time passes at once; after each reading of the lease, `watched.then()` happens."""
    clock = SimpleNamespace(now_s=0.0, then=lambda: None)

    def sleep(seconds):
        clock.now_s += seconds
        clock.then()

    fake = SimpleNamespace(monotonic=lambda: clock.now_s, sleep=sleep)
    monkeypatch.setattr("faro_ops.operate.kube.lease.time", fake)
    return clock


@pytest.mark.parametrize("renewed", ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"])
def test_nothing_is_restored_under_a_live_leader_however_far_off_its_clock_is(
    renewed, faro_restore, watched
):
    server = bounded()
    server.put(LEASE, lease("x", renewed))

    def renew():
        server.put(LEASE, lease("x", f"{renewed} {watched.now_s}"))

    watched.then = renew
    assert faro_restore(server, "--unled", "300") == (
        0,
        ["a controller leads; nothing is restored"],
    )
    assert server.bounds() == {"a": (3, 6), "b": (1, 2)}
    assert watched.now_s < 10, "the run ends as soon as it has seen a renewal"


@pytest.mark.parametrize("renewed", ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"])
def test_bounds_are_restored_after_five_minutes_of_watching_without_a_renewal(
    renewed, faro_restore, watched
):
    server = bounded()
    server.put(LEASE, lease("x", renewed))
    assert faro_restore(server, "--unled", "300")[0] == 0
    assert server.bounds() == ORIGINAL
    assert watched.now_s >= 300


def test_a_lease_that_somebody_deletes_under_a_live_leader_restores_nothing(faro_restore, watched):
    server = bounded()

    def recreated():
        server.put(LEASE, lease("leader", str(watched.now_s)))

    watched.then = recreated
    assert faro_restore(server, "--unled", "300")[0] == 0
    assert server.bounds() == {"a": (3, 6), "b": (1, 2)}


def test_autoscalers_of_jobs_that_have_left_the_table_are_restored_without_any_table(faro_restore):
    server = bounded()
    del server.replicas["b"]
    status, said = faro_restore(server)
    assert status == 0
    assert server.bounds() == ORIGINAL
    assert said[0] == (
        "other namespaces: not searched: no permission; --namespace names some of them"
    )


def test_autoscalers_of_all_namespaces_are_restored_if_they_may_be_listed(faro_restore):
    server = bounded()
    server.may = lambda asked: True
    assert faro_restore(server) == (
        0,
        ["jobs/a: bounds 1-4 restored", "jobs/b: bounds 1-4 restored"],
    )


def test_a_namespace_that_cannot_be_listed_costs_the_others_nothing_but_the_exit_status(
    faro_restore,
):
    server = bounded()
    server.refuse(403, "GET", "/namespaces/former/")
    status, said = faro_restore(server, "--namespace", "former")
    assert status == 2
    assert server.bounds() == ORIGINAL
    assert any(
        line.startswith("namespace former: not searched: ") and "403" in line for line in said
    )
    assert said[-1] == "faro: not everything is restored: namespace former failed"


def test_an_operators_bounds_are_no_failure_and_force_overwrites_them(faro_restore):
    server = bounded()
    server.change(HPA, "a", spec={"maxReplicas": 9})
    status, said = faro_restore(server)
    assert status == 0
    assert any(line.startswith("jobs/a: left at 3-9") for line in said)
    assert server.bounds() == {"a": (3, 9), "b": (1, 4)}
    assert faro_restore(server, "--force")[0] == 0
    assert server.bounds() == ORIGINAL


def test_faro_restore_fails_after_trying_all_if_an_autoscaler_is_not_restored(faro_restore):
    server = bounded()
    server.refuse(403, "PATCH", "/horizontalpodautoscalers/a")
    status, said = faro_restore(server)
    assert status == 2
    assert server.bounds() == {"a": (3, 6), "b": (1, 4)}
    assert said[1:] == [
        f"jobs/a: not restored: {FORBIDDEN}",
        "jobs/b: bounds 1-4 restored",
        "faro: not everything is restored: jobs/a failed",
    ]


# --- by the CronJob of the manifests --------------------------------------------------------------


def test_manifests_for_ceilings_have_a_job_that_restores_the_bounds(tmp_path):
    row = {
        "job": "a",
        "slo_s": 1.0,
        "service_time_s": 0.1,
        "deployment": {"autoscaler": "hpa-a", "queries": QUERIES},
    }
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump([row]))
    arguments = ["manifests", "--jobs", str(tmp_path / "jobs.yaml"), "--out", str(tmp_path / "m")]
    arguments += ["--backend", "deployments", "--prometheus", "http://p:9090", "--act", "ceilings"]
    assert cli.main([*arguments, "--former-namespace", "old"]) == 0
    job = of_kind(yaml.safe_load_all((tmp_path / "m/restore.yaml").read_text()), "CronJob")[0]
    pods = job["spec"]["jobTemplate"]["spec"]
    pod = pods["template"]["spec"]
    container = pod["containers"][0]
    words = ["restore", "--namespace", "old", "--plan", "faro/faro", "--unled", "300.0"]
    assert container["args"] == words
    assert pods["activeDeadlineSeconds"] > 600, "it watches the lease, and may have to wait for it"
    assert pod["serviceAccountName"] == "faro-restore"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert "restore.yaml" in (tmp_path / "m/kustomization.yaml").read_text()
    controller = next(yaml.safe_load_all((tmp_path / "m/controller.yaml").read_text()))
    words = controller["spec"]["template"]["spec"]["containers"][0]["args"]
    assert words[words.index("--act") + 1] == "ceilings"
    assert "hpa-a" in (tmp_path / "m/rbac.yaml").read_text()


def test_manifests_of_a_dry_run_restore_the_bounds_of_an_earlier_run(tmp_path):
    spec = ManifestSpec((), "", "deployments", prometheus="http://x", ceilings=True, act=False)
    assert tmp_path / "restore.yaml" in write(spec, tmp_path)
    assert "restore.yaml" in (tmp_path / "kustomization.yaml").read_text()


def of_kind(things, kind: str) -> list[dict]:
    return [one for one in things if one["kind"] == kind]


def test_the_job_may_patch_every_autoscaler_of_its_namespaces_and_the_controller_only_named_ones():
    """Also those of removed jobs, and of namespaces that no longer have a job."""
    spec = ManifestSpec(
        (),
        "",
        "deployments",
        prometheus="http://x",
        ceilings=True,
        deployments=("hpa-a",),
        namespaces=("models",),
        former_namespaces=("old",),
    )

    def patchable(template) -> dict:
        """Namespace -> names of the HPAs that may be patched, None for all of them."""
        return {
            role["metadata"]["namespace"]: rule.get("resourceNames")
            for role in of_kind(objects(spec, template), "Role")
            for rule in role["rules"]
            if rule["resources"] == ["horizontalpodautoscalers"] and "patch" in rule["verbs"]
        }

    assert patchable("restore.yaml") == dict.fromkeys(("faro", "models", "old"))
    assert patchable("rbac.yaml") == {"faro": ["hpa-a"], "models": ["hpa-a"]}
    accounts = {
        subject["name"]
        for one in of_kind(objects(spec, "restore.yaml"), "RoleBinding")
        for subject in one["subjects"]
    }
    assert accounts == {"faro-restore"}
    rules = [r for role in of_kind(objects(spec, "restore.yaml"), "Role") for r in role["rules"]]
    assert {resource for rule in rules for resource in rule["resources"]} == {
        "leases",
        "horizontalpodautoscalers",
    }
    assert not of_kind(objects(spec, "restore.yaml"), "ClusterRole")


def test_a_former_namespace_with_an_impossible_name_is_refused():
    with pytest.raises(ValueError, match=r"former_namespaces\[0\]='No' is not a Kubernetes name"):
        ManifestSpec((), "", "deployments", prometheus="http://x", former_namespaces=("No",))
