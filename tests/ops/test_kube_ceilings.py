"""`faro run --act ceilings`: Faro writes the bounds of HorizontalPodAutoscalers only."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import yaml
from kube_things import measured, objects

from faro_lib.control import GuardrailConfig
from faro_lib.protocol import CONTESTED, PLANNED, hold
from faro_lib.workload import Job
from faro_ops import cli
from faro_ops.controller import loop
from faro_ops.controller.clock import Clock
from faro_ops.controller.scaling import NotScaled
from faro_ops.kube import preflight
from faro_ops.kube.client import ApiError
from faro_ops.kube.deployments import DeploymentRef
from faro_ops.kube.hpa_bounds import ORIGINAL, BoundedDeployments, check_bounded, restore
from faro_ops.kube.leader_gate import LeaderGatedCluster
from faro_ops.kube.lease import Leadership, seconds_unled
from faro_ops.kube.manifests import ManifestSpec, write
from faro_ops.kube.operate import restore_unled
from faro_ops.policies.bounds import HAND_BACK, KEEP_FLOOR, AsBounds
from faro_ops.policies.protocol import LivePlan

JOBS = (Job("a"), Job("b"))
DEPLOYMENTS = "/apis/apps/v1/namespaces/jobs/deployments"
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/jobs/horizontalpodautoscalers"
QUERIES = {"requests": "r[$window]", "latency_mean_s": "l[$window]"}
SECTION = {"queries": QUERIES}
REFS = [DeploymentRef.of(job, SECTION, "jobs") for job in JOBS]


class Server:
    """Two Deployments with an HPA each, whose versions change whenever `busy` is true.

    It records every write.
    """

    def __init__(self, replicas=(2, 2), bounds=((1, 4), (1, 4))):
        self.replicas = dict(zip("ab", replicas))
        self.written = []
        self.busy = 0
        self.lock = threading.Lock()
        self.hpas = {name: self.hpa(name, *of) for name, of in zip("ab", bounds)}
        self.lease = None

    @staticmethod
    def hpa(name, low, high):
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        spec = {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high}
        return {
            "metadata": {"name": name, "namespace": "jobs", "resourceVersion": "1"},
            "spec": spec,
        }

    def deployment(self, name):
        metadata = {"name": name, "namespace": "jobs", "resourceVersion": "1", "generation": 1}
        status = {
            "observedGeneration": 1,
            "readyReplicas": self.replicas[name],
            "replicas": self.replicas[name],
        }
        return {"metadata": metadata, "spec": {"replicas": self.replicas[name]}, "status": status}

    def bounds(self):
        return {
            n: (one["spec"]["minReplicas"], one["spec"]["maxReplicas"])
            for n, one in self.hpas.items()
        }

    def get(self, path, **_):
        if path == DEPLOYMENTS:
            return {"items": [self.deployment(name) for name in self.replicas]}
        if path == AUTOSCALERS:
            return json.loads(json.dumps({"items": list(self.hpas.values())}))
        if "leases" in path:
            if self.lease is None:
                raise ApiError(404, "no lease")
            return self.lease
        return json.loads(json.dumps(self.hpas[path.removeprefix(f"{AUTOSCALERS}/")]))

    def send(self, method, path, body, **_):
        with self.lock:
            hpa = self.hpas[path.removeprefix(f"{AUTOSCALERS}/")]
            metadata = hpa["metadata"]
            if self.busy:  # the HPA controller has written its status
                self.busy -= 1
                metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            if (
                body["metadata"].get("resourceVersion", metadata["resourceVersion"])
                != metadata["resourceVersion"]
            ):
                raise ApiError(409, "changed")
            self.written.append((method, path, body))
            notes = metadata.setdefault("annotations", {}) | body["metadata"]["annotations"]
            metadata["annotations"] = {
                key: value for key, value in notes.items() if value is not None
            }
            metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
            hpa["spec"] |= body["spec"]
            return json.loads(json.dumps(hpa))


class Silent:
    """Metrics of jobs without any load."""

    def observe(self, queries, *_):
        return measured(np.zeros((len(queries), 1)), np.zeros(len(queries)))


def cluster_on(server, cores=8.0):
    return BoundedDeployments(server, REFS, Silent(), Clock.starting_now(), cores)


def applied(server, ceilings, floors=(1, 1), cluster=None):
    cluster = cluster or cluster_on(server)
    cluster.observe()
    floor = {} if floors is None else {"floor": np.array(floors)}
    LeaderGatedCluster(cluster).apply(np.array(ceilings), np.zeros(2), **floor)
    return cluster


def test_bounds_are_written_and_the_replicas_never():
    server = Server()
    applied(server, [6, 2], [3, 1])
    assert server.bounds() == {"a": (3, 6), "b": (1, 2)}
    assert {path.split("/")[-2] for _, path, _ in server.written} == {"horizontalpodautoscalers"}
    assert all(set(body["spec"]) == {"minReplicas", "maxReplicas"} for *_, body in server.written)


def test_what_is_right_already_is_not_written_again_and_without_floors_the_old_ones_stay():
    server = Server(bounds=((2, 4), (1, 4)))
    applied(server, [4, 4], [2, 1])
    assert server.written == []
    applied(server, [5, 3], [2, 1])
    applied(server, [4, 3], None)
    assert server.bounds() == {"a": (2, 4), "b": (1, 3)}
    applied(server, [5, 3], [KEEP_FLOOR, 2])
    assert server.bounds() == {"a": (2, 5), "b": (2, 3)}


def test_before_its_first_plan_faro_leaves_the_bounds_of_others_alone():
    server = Server()
    applied(server, [2, 2], None)
    assert server.written == []


def test_a_service_is_handed_back_with_its_own_bounds_and_its_replicas_as_they_are():
    server = Server(bounds=((2, 5), (1, 3)))
    applied(server, [3, 4], [3, 2])
    cluster = applied(server, [2, 4], [HAND_BACK, 2])
    assert server.bounds() == {"a": (2, 5), "b": (2, 4)}
    assert ORIGINAL not in server.hpas["a"]["metadata"]["annotations"]
    assert cluster.observe().target.tolist() == [2, 4], (
        "the replicas of its HPA count, and not its own maximum"
    )
    count = len(server.written)
    applied(server, [2, 4], [HAND_BACK, 2], cluster)
    assert len(server.written) == count


def test_the_observed_targets_are_the_ceilings_and_the_replicas_those_of_the_hpa():
    server = Server(replicas=(3, 1))
    assert cluster_on(server).observe().target.tolist() == [3, 1], "Faro has set no bounds yet"
    observation = applied(server, [5, 3]).observe()
    assert observation.target.tolist() == [5, 3]
    assert observation.running.tolist() == [3, 1]
    assert not observation.changing.any()


def test_a_ceiling_waits_without_a_failure_until_the_pods_above_another_ceiling_are_gone():
    server = Server(replicas=(4, 2))
    cluster = applied(server, [2, 6], [1, 5])
    assert server.bounds() == {"a": (1, 2), "b": (1, 4)}, "a still has four pods"
    assert cluster.observe().target.tolist() == [2, 6], "nobody else has changed the ceiling of b"
    server.replicas["a"] = 2  # its HPA has followed
    applied(server, [2, 6], cluster=cluster)
    assert server.bounds()["b"][1] == 6
    assert sum(high for _, high in server.bounds().values()) <= 8


def refuse_writes_to_a(server, error):
    accepted = server.send

    def send(method, path, body, **more):
        if path.endswith("/a"):
            raise error
        return accepted(method, path, body, **more)

    server.send = send


def test_the_ceilings_never_exceed_the_capacity_even_if_lowering_one_fails():
    server = Server()
    refuse_writes_to_a(server, ApiError(500, "no"))
    with pytest.raises(NotScaled, match=r"^the bounds of a are not set to \(1, 2\): no$"):
        applied(server, [2, 6])
    assert server.bounds() == {"a": (1, 4), "b": (1, 4)}


def test_the_original_bounds_are_kept_once_and_restored():
    server = Server(bounds=((2, 5), (1, 3)))
    applied(server, [3, 4], [1, 2])
    applied(server, [4, 2], [1, 1])
    assert server.hpas["a"]["metadata"]["annotations"][ORIGINAL] == "[2, 5]"
    lines = restore(server, list(server.hpas.values()))
    assert lines == ["a: bounds 2-5 restored", "b: bounds 1-3 restored"]
    assert server.bounds() == {"a": (2, 5), "b": (1, 3)}
    assert ORIGINAL not in server.hpas["a"]["metadata"]["annotations"]
    assert restore(server, list(server.hpas.values())) == [], "an operator's later bounds stay"


def test_an_autoscaler_that_cannot_be_restored_is_named_and_the_others_are_restored():
    server = Server(bounds=((2, 5), (1, 3)))
    applied(server, [4, 4], [1, 2])
    refuse_writes_to_a(server, ApiError(403, "forbidden"))
    lines = restore(server, list(server.hpas.values()))
    assert lines == ["a: not restored: forbidden", "b: bounds 1-3 restored"]
    assert server.bounds() == {"a": (1, 4), "b": (1, 3)}


def test_a_maximum_is_never_zero_because_no_hpa_accepts_it():
    server = Server()
    applied(server, [0, 4], [0, 1])
    assert server.bounds()["a"][1] == 1


def test_a_service_that_is_gone_with_its_hpa_is_no_failure():
    server = Server()
    del server.hpas["a"], server.replicas["a"]
    applied(server, [0, 3], [1, 1])
    assert server.bounds() == {"b": (1, 3)}


def test_a_status_that_changes_meanwhile_does_not_hinder_but_other_bounds_do():
    server = Server()
    cluster = cluster_on(server)
    cluster.observe()
    server.busy = 1
    cluster.apply(np.array([5, 3]), np.zeros(2), floor=np.ones(2, int))
    assert server.bounds() == {"a": (1, 5), "b": (1, 3)}
    cluster.observe()
    server.hpas["a"]["spec"]["maxReplicas"] = 9
    server.busy = 1
    with pytest.raises(
        NotScaled, match=r"^the bounds of a are not set to \(1, 4\): another client has set 1-9$"
    ):
        cluster.apply(np.array([4, 3]), np.zeros(2))
    assert server.bounds()["a"] == (1, 9)


def test_a_controller_that_may_not_act_writes_nothing():
    server = Server()
    cluster = cluster_on(server)
    cluster.observe()
    with pytest.raises(NotScaled, match="another controller may act now"):
        cluster.apply(np.array([5, 3]), np.zeros(2), may_act=lambda: False, floor=np.ones(2, int))
    assert server.written == []


def test_the_client_that_last_wrote_a_maximum_is_named():
    server = Server()
    fields = {"f:spec": {"f:maxReplicas": {}}}
    server.hpas["a"]["metadata"]["managedFields"] = [
        {"manager": "faro", "time": "2", "fieldsV1": fields},
        {"manager": "kubectl", "time": "1", "fieldsV1": fields},
    ]
    cluster = cluster_on(server)
    cluster.observe()
    assert [cluster.writer_of(job) for job in range(2)] == ["kubectl", None]


class Bounds:
    """A policy that asks for the same bounds at every tick."""

    name, tick_s = "Bounds", 10.0

    def __init__(self, ceilings, floors):
        self.plan = LivePlan(
            np.array(ceilings), np.zeros(2), (PLANNED,) * 2, floor=np.array(floors)
        )

    def start(self, jobs):
        return None

    def decide(self, state, observation):
        return state, self.plan


class Ticks(BoundedDeployments):
    """In which time passes at once, and the HPAs of `server` follow their bounds within a tick."""

    def advance(self, until_s):
        self._tick_s = until_s
        for name, (low, high) in self._api.bounds().items():
            self._api.replicas[name] = min(max(self._api.replicas[name], low), high)


def test_the_loop_keeps_ceilings_within_the_capacity_and_reports_a_client_that_changes_one():
    server, steps = Server(replicas=(4, 4)), []
    cluster = Ticks(server, REFS, Silent(), Clock.starting_now(), 8.0)

    def seen(step):
        steps.append((step, server.bounds()))
        if len(steps) > 3:
            server.hpas["b"]["spec"]["maxReplicas"] = 7

    loop.run(cluster, Bounds([9, 2], [2, 1]), JOBS, 100.0, on_step=seen)
    assert steps[0][0].target.tolist() == [6, 2], "the sum is cut to the capacity"
    assert steps[1][1] == {"a": (2, 6), "b": (1, 2)}
    assert all(one["a"][1] + min(one["b"][1], 4) <= 8 for _, one in steps)
    assert steps[-1][0].plan.reason[1] == CONTESTED


def test_an_hpa_that_scales_before_the_first_plan_is_not_another_client():
    server, steps = Server(replicas=(1, 1)), []
    cluster = Ticks(server, REFS, Silent(), Clock.starting_now(), 8.0)

    class Later(Bounds):
        """Holds for five ticks, as Faro does until it has counted a minute."""

        def decide(self, state, observation):
            return state, self.plan if observation.now_s >= 50 else hold(observation)

    def scale(step):
        steps.append(step)
        if len(steps) < 6:
            server.replicas["a"] = len(steps)  # the HPA follows its load at every tick

    loop.run(cluster, Later([5, 2], [2, 1]), JOBS, 100.0, on_step=scale)
    assert not any(CONTESTED in step.plan.reason for step in steps)
    assert server.bounds() == {"a": (2, 5), "b": (1, 2)}


def test_a_job_without_data_keeps_its_bounds():
    class Blind(Silent):
        def observe(self, queries, *_):
            return measured([[0.0], [np.nan]], [0.0, np.nan])

    server = Server(bounds=((1, 4), (3, 4)))
    cluster = Ticks(server, REFS, Blind(), Clock.starting_now(), 8.0)
    loop.run(
        cluster,
        Bounds([5, 1], [2, 1]),
        JOBS,
        300.0,
        guardrails=GuardrailConfig(stale_after_s=0.0),
    )
    assert server.bounds() == {"a": (2, 5), "b": (3, 4)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            None,
            r"^deployment 'jobs/a' has no HorizontalPodAutoscaler; "
            r"--act ceilings sets the bounds of one$",
        ),
        ({"name": "by-cpu"}, r"^job 'a': deployment.autoscaler='a' must be 'by-cpu'$"),
        (
            {"ownerReferences": [{"kind": "ScaledObject", "name": "x"}]},
            r"^HorizontalPodAutoscaler 'a' belongs to ScaledObject 'x', "
            r"which would reset its bounds$",
        ),
    ],
)
def test_a_controller_does_not_start_without_autoscalers_that_it_can_bound(changed, message):
    hpa = None if changed is None else Server.hpa("a", 1, 4)
    if hpa:
        hpa["metadata"] |= changed
    with pytest.raises(ValueError, match=message):
        check_bounded(REFS, [hpa, Server.hpa("b", 1, 4)])


@pytest.mark.parametrize(("least", "low", "needed"), [(0, 1, 1), (0, 0, 1), (2, 3, 3)])
def test_a_job_keeps_at_least_the_replicas_of_its_hpa_and_one(least, low, needed):
    """Faro may set minReplicas to the table's min_replicas."""
    told = f"min_replicas={least}, but its HPA keeps {low}"
    problem = f"^job 'a': {told}; write min_replicas: {needed} into the table$"
    ref = DeploymentRef.of(Job("a", min_replicas=least), SECTION, "jobs")
    with pytest.raises(ValueError, match=problem):
        check_bounded([ref], [Server.hpa("a", low, 4)])
    check_bounded([replace(ref, job=Job("a", min_replicas=needed))], [Server.hpa("a", low, 4)])


def test_the_bounds_that_count_for_the_check_are_those_before_faro():
    server = Server(bounds=((2, 4), (1, 4)))
    refs = [replace(REFS[0], job=Job("a", min_replicas=2)), REFS[1]]
    applied(server, [4, 4], [3, 1])
    check_bounded(refs, server.hpas.values())
    with pytest.raises(ValueError, match=r"^job 'a': min_replicas=1, but its HPA keeps 2"):
        check_bounded(REFS, server.hpas.values())


def test_an_operator_may_fix_fewer_replicas_than_an_hpa_keeps():
    fixed = replace(REFS[0], job=Job("a", min_replicas=1, max_replicas=1))
    check_bounded([fixed], [Server.hpa("a", 2, 4)])


def test_the_role_may_change_the_named_autoscalers_and_no_replicas():
    where = dict(
        namespace="faro",
        prometheus="http://x",
        deployments=("hpa-a", "hpa-b"),
        namespaces=("models",),
    )
    spec = ManifestSpec(jobs=(), jobs_text="", backend="deployments", ceilings=True, **where)
    roles = [one for one in objects(spec, "rbac.yaml") if one["kind"] == "Role"]
    rules = [rule for role in roles for rule in role["rules"]]
    assert not any("deployments/scale" in rule["resources"] for rule in rules)
    changing = [
        one
        for one in rules
        if "horizontalpodautoscalers" in one["resources"] and "patch" in one["verbs"]
    ]
    assert changing
    assert all(one["resourceNames"] == ["hpa-a", "hpa-b"] for one in changing)
    assert not any(
        "patch" in rule["verbs"] and rule["resources"] == ["deployments"] for rule in rules
    )


def test_the_permissions_that_the_controller_checks_are_those_of_the_role():
    assert {resource for _, resource, _ in preflight.FOR_CEILINGS} == {
        "deployments",
        "horizontalpodautoscalers",
    }
    assert preflight.names_of("faro", ["x"])["horizontalpodautoscalers"] == ["x"]


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
    assert cli.main(arguments) == 0
    (job,) = yaml.safe_load_all((tmp_path / "m/restore.yaml").read_text())
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    words = container["args"]
    assert words[: words.index("--unled")] == [
        "restore",
        "--jobs",
        "/etc/faro/jobs.yaml",
        "--plan",
        "faro/faro",
    ]
    assert float(words[-1]) == 300
    assert pod["serviceAccountName"] == "faro-controller"
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--act", "ceilings"], "act=ceilings needs --backend deployments"),
        (["--act", "bounds"], "act='bounds' is unknown; accepted: replicas, ceilings"),
    ],
)
def test_what_to_act_on_is_checked_first(options, message, tmp_path, capsys):
    (tmp_path / "jobs.yaml").write_text("[{job: a, slo_s: 1.0, service_time_s: 0.1}]")
    for command in ("run", "manifests"):
        assert cli.main([command, "--jobs", str(tmp_path / "jobs.yaml"), *options]) == 2
        assert message in capsys.readouterr().err


def test_a_policy_without_a_table_of_utilities_cannot_set_bounds():
    from faro_lib.policies import AIAD

    with pytest.raises(
        ValueError, match=r"^policy='AIAD' makes no predictions; accepted: Faro-Sum"
    ):
        AsBounds.of(AIAD())


def test_the_time_without_a_leader_counts_from_the_last_renewal():
    server = Server()
    assert seconds_unled(server, "jobs", "faro") == float("inf")
    server.lease = {"spec": {"renewTime": (datetime.now(UTC) - timedelta(seconds=400)).isoformat()}}
    assert seconds_unled(server, "jobs", "faro") == pytest.approx(400, abs=30)


@pytest.mark.parametrize(("renewed_s_ago", "restored"), [(400, True), (5, False)])
def test_faro_restore_acts_only_if_nobody_has_led_for_long_enough(
    renewed_s_ago, restored, tmp_path, monkeypatch, capsys
):
    from faro_ops.kube.operate import NamespacedName

    server = Server()
    applied(server, [6, 2], [3, 1])
    server.lease = {
        "spec": {"renewTime": (datetime.now(UTC) - timedelta(seconds=renewed_s_ago)).isoformat()}
    }
    monkeypatch.setattr(NamespacedName, "connect", lambda self: server)
    monkeypatch.setattr(preflight, "check_server", lambda api: None)
    rows = [
        {
            "job": job.name,
            "slo_s": 1.0,
            "service_time_s": 0.1,
            "deployment": dict(SECTION, queries=dict(QUERIES)),
        }
        for job in JOBS
    ]
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(rows))
    assert (
        cli.main(
            [
                "restore",
                "--jobs",
                str(tmp_path / "jobs.yaml"),
                "--plan",
                "jobs/faro",
                "--unled",
                "300",
            ]
        )
        == 0
    )
    assert (server.bounds() == {"a": (1, 4), "b": (1, 4)}) is restored
    said = capsys.readouterr().err
    assert ("a: bounds 1-4 restored" in said) is restored
    assert ("nothing is restored" in said) is not restored


def test_faro_restore_restores_the_autoscalers_of_jobs_that_are_no_longer_in_the_table(
    tmp_path, monkeypatch
):
    from faro_ops.kube.operate import NamespacedName

    server = Server()
    applied(server, [6, 2], [3, 1])
    monkeypatch.setattr(NamespacedName, "connect", lambda self: server)
    monkeypatch.setattr(preflight, "check_server", lambda api: None)
    row = {"job": "a", "slo_s": 1.0, "service_time_s": 0.1, "deployment": SECTION}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump([row]))
    assert cli.main(["restore", "--jobs", str(tmp_path / "jobs.yaml"), "--plan", "jobs/faro"]) == 0
    assert server.bounds() == {"a": (1, 4), "b": (1, 4)}


def test_faro_restore_fails_after_trying_all_if_an_autoscaler_is_not_restored(
    tmp_path, monkeypatch, capsys
):
    from faro_ops.kube.operate import NamespacedName

    server = Server()
    applied(server, [6, 2], [3, 1])
    refuse_writes_to_a(server, ApiError(403, "forbidden"))
    monkeypatch.setattr(NamespacedName, "connect", lambda self: server)
    monkeypatch.setattr(preflight, "check_server", lambda api: None)
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump([{"job": "a", "deployment": SECTION}]))
    assert cli.main(["restore", "--jobs", str(tmp_path / "jobs.yaml"), "--plan", "jobs/faro"]) != 0
    assert server.bounds() == {"a": (3, 6), "b": (1, 4)}
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["a: not restored: forbidden", "b: bounds 1-4 restored"]
    assert said[2:] == ["faro: 1 of 2 autoscalers are not restored"]


@pytest.mark.parametrize(("unled_s", "bounds"), [(301.0, (1, 4)), (299.0, (1, 6))])
def test_a_standby_restores_the_bounds_if_nobody_has_led_for_five_minutes(unled_s, bounds):
    from types import SimpleNamespace

    server, lines = Server(), []
    cluster = applied(server, [6, 2])
    restore_unled(server, cluster, SimpleNamespace(unled_s=unled_s), lines.append)
    assert server.bounds()["a"] == bounds
    assert (lines[:1] == ["nobody has led for 300 s: a: bounds 1-4 restored"]) is (unled_s > 300)


def test_a_standby_that_cannot_read_the_lease_does_not_take_it_for_unled():
    leadership = Leadership(None, "jobs", "faro", "standby")
    leadership.candidate = replace(
        leadership.candidate, record=("other", "1"), since_s=time.monotonic() - 400
    )
    assert leadership.unled_s == pytest.approx(400, abs=30)
    leadership.error = ApiError(0, "no answer")
    assert leadership.unled_s == 0


def test_a_standby_survives_an_api_server_that_does_not_answer():
    from types import SimpleNamespace

    cluster = applied(Server(), [6, 2])
    cluster.autoscalers = lambda: (_ for _ in ()).throw(ApiError(0, "no answer"))
    restore_unled(Server(), cluster, SimpleNamespace(unled_s=301.0), print)
