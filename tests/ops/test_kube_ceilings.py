"""`faro run --act ceilings`: Faro writes the bounds of HorizontalPodAutoscalers only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kube_api import ClusterApi
from kube_things import HPA, Measured, hpa, node, objects, pod

from faro_lib.control import Step
from faro_lib.protocol import CONTESTED, HOLD, PLANNED, hold
from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.capacity import Capacity, Shape, capacity, placement
from faro_ops.operate.kube.deployments import DeploymentRef
from faro_ops.operate.kube.hpa_bounds import NOTE, BoundedDeployments, check_bounded
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.manifests import ManifestSpec
from faro_ops.operate.kube.status import status_of
from faro_ops.operate.limits.bounds import HAND_BACK, KEEP_FLOOR, AsBounds
from faro_ops.operate.loop import loop
from faro_ops.operate.scaling import NotScaled
from faro_ops.protocol import LiveGuardrails, LivePlan

JOBS = (Job("a"), Job("b"))
QUERIES = {"requests": "r[$window]", "latency_mean_s": "l[$window]"}
SECTION = {"queries": QUERIES}
REFS = [DeploymentRef.of(job, SECTION, "jobs") for job in JOBS]


def two_services(replicas=(2, 2), bounds=((1, 4), (1, 4))) -> ClusterApi:
    """Two Deployments with an HPA each. The client may not list objects of all namespaces."""
    server = ClusterApi(dict(zip("ab", replicas)))
    for name, (low, high) in zip("ab", bounds):
        server.put(HPA, hpa(name, low, high))
    server.may = lambda asked: asked["namespace"] != ""
    return server


def cluster_on(server, cores=8.0):
    return BoundedDeployments(server, REFS, Measured(0.0, 0.0), Clock.starting_now(), cores)


def applied(server, ceilings, floors=(1, 1), cluster=None):
    cluster = cluster or cluster_on(server)
    cluster.observe()
    floor = {} if floors is None else {"floor": np.array(floors)}
    LeaderGatedCluster(cluster).apply(np.array(ceilings), np.zeros(2), **floor)
    return cluster


def test_bounds_are_written_and_the_replicas_never():
    server = two_services()
    applied(server, [6, 2], [3, 1])
    assert server.bounds() == {"a": (3, 6), "b": (1, 2)}
    assert {path.split("/")[-2] for _, path, _ in server.writes} == {"horizontalpodautoscalers"}
    assert all(set(body["spec"]) == {"minReplicas", "maxReplicas"} for *_, body in server.writes)


def test_what_is_right_already_is_not_written_again_and_without_floors_the_old_ones_stay():
    server = two_services(bounds=((2, 4), (1, 4)))
    applied(server, [4, 4], [2, 1])
    assert server.writes == []
    applied(server, [5, 3], [2, 1])
    applied(server, [4, 3], None)
    assert server.bounds() == {"a": (2, 4), "b": (1, 3)}
    applied(server, [5, 3], [KEEP_FLOOR, 2])
    assert server.bounds() == {"a": (2, 5), "b": (2, 3)}


def test_before_its_first_plan_faro_leaves_the_bounds_of_others_alone():
    server = two_services()
    applied(server, [2, 2], None)
    assert server.writes == []


def test_a_service_is_handed_back_with_its_own_bounds_and_its_replicas_as_they_are():
    server = two_services(bounds=((2, 5), (1, 3)))
    applied(server, [3, 4], [3, 2])
    cluster = applied(server, [2, 4], [HAND_BACK, 2])
    assert server.bounds() == {"a": (2, 5), "b": (2, 4)}
    assert NOTE not in server.find(HPA, "a")["metadata"]["annotations"]
    assert cluster.observe().target.tolist() == [2, 4], (
        "the replicas of its HPA count, and not its own maximum"
    )
    count = len(server.writes)
    applied(server, [2, 4], [HAND_BACK, 2], cluster)
    assert len(server.writes) == count


def test_a_service_that_is_handed_back_keeps_the_bounds_that_another_client_has_set():
    server = two_services(bounds=((2, 5), (1, 3)))
    applied(server, [3, 4], [3, 2])
    server.change(HPA, "a", spec={"maxReplicas": 9})
    applied(server, [9, 4], [HAND_BACK, 2])
    assert server.bounds()["a"] == (3, 9)
    assert NOTE not in server.find(HPA, "a")["metadata"]["annotations"]


def test_the_observed_targets_are_the_ceilings_and_the_replicas_those_of_the_hpa():
    server = two_services(replicas=(3, 1))
    assert cluster_on(server).observe().target.tolist() == [3, 1], "Faro has set no bounds yet"
    observation = applied(server, [5, 3]).observe()
    assert observation.target.tolist() == [5, 3]
    assert observation.running.tolist() == [3, 1]
    assert not observation.changing.any()


def test_a_ceiling_waits_without_a_failure_until_the_pods_above_another_ceiling_are_gone():
    server = two_services(replicas=(4, 2))
    cluster = applied(server, [2, 6], [1, 5])
    assert server.bounds() == {"a": (1, 2), "b": (1, 4)}, "a still has four pods"
    assert cluster.observe().target.tolist() == [2, 6], "nobody else has changed the ceiling of b"
    server.replicas["a"] = 2  # its HPA has followed
    applied(server, [2, 6], cluster=cluster)
    assert server.bounds()["b"][1] == 6
    assert sum(high for _, high in server.bounds().values()) <= 8


def test_a_ceiling_waits_for_pods_that_still_end_on_the_nodes():
    """The plan is cut to what finds room beside them, so that no new pod is Pending.

    That holds from the first plan on, when Faro has set no bounds yet.
    """
    server, steps = two_services(replicas=(4, 4), bounds=((1, 4), (1, 4))), []
    ending = {"a": 0}

    def measured_capacity() -> Capacity:
        pods = [
            pod(f"{name}-{n}", labels={"app": name})
            for name, count in server.replicas.items()
            for n in range(count)
        ]
        gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
        for n in range(ending["a"]):
            pods.append(pod(f"a-ending-{n}", labels={"app": "a"}))
            pods[-1]["metadata"] |= gone

        def job_of(one):
            return "ab".index(one["metadata"]["labels"]["app"])

        shape = Shape(quantum=1.0)
        now = capacity([node(cpu="8")], pods, [], "jobs", lambda one: 1.0, shape)
        free, placed = placement(pods, job_of, [1.0, 1.0], now.by_node)
        return replace(now, free_cores=free, placed=placed)

    cluster = Ticks(server, REFS, Measured(0.0, 0.0), Clock.starting_now(), 8.0)
    gated = LeaderGatedCluster(cluster, measured_capacity, jobs=JOBS)

    def seen(step):
        steps.append((server.bounds()["b"][1], ending["a"]))
        if len(steps) == 1:  # the HPA of a removes two replicas, whose pods end for a while
            ending["a"] = 2
        if len(steps) == 5:
            ending["a"] = 0

    loop.run(gated, Bounds([2, 6], [1, 1]), JOBS, 100.0, on_step=seen)
    assert all(high == 4 for high, pods_ending in steps if pods_ending), steps
    assert steps[-1] == (6, 0)


def test_the_ceilings_never_exceed_the_capacity_even_if_lowering_one_fails():
    server = two_services()
    server.refuse(500, "PATCH", "/horizontalpodautoscalers/a")
    with pytest.raises(NotScaled, match=r"^the bounds of a are not set to \(1, 2\): .*500"):
        applied(server, [2, 6])
    assert server.bounds() == {"a": (1, 4), "b": (1, 4)}


def test_a_maximum_is_never_zero_because_no_hpa_accepts_it():
    server = two_services()
    applied(server, [0, 4], [0, 1])
    assert server.bounds()["a"][1] == 1


def test_a_service_that_is_gone_with_its_hpa_is_no_failure():
    server = two_services()
    server.remove(HPA, "a")
    del server.replicas["a"]
    applied(server, [0, 3], [1, 1])
    assert server.bounds() == {"b": (1, 3)}


def test_the_hpa_of_a_deployment_that_is_gone_keeps_its_bounds_for_its_return():
    server = two_services()
    del server.replicas["a"]
    applied(server, [0, 3], [1, 1])
    assert server.bounds() == {"a": (1, 4), "b": (1, 3)}


def test_a_status_that_changes_meanwhile_does_not_hinder_but_other_bounds_do():
    server = two_services()
    cluster = cluster_on(server)
    cluster.observe()
    server.busy = 1
    cluster.apply(np.array([5, 3]), np.zeros(2), floor=np.ones(2, int))
    assert server.bounds() == {"a": (1, 5), "b": (1, 3)}
    cluster.observe()
    server.change(HPA, "a", spec={"maxReplicas": 9})
    server.busy = 1
    with pytest.raises(
        NotScaled, match=r"^the bounds of a are not set to \(1, 4\): another client has set 1-9$"
    ):
        cluster.apply(np.array([4, 3]), np.zeros(2))
    assert server.bounds()["a"] == (1, 9)


def test_a_controller_that_may_not_act_writes_nothing():
    server = two_services()
    cluster = cluster_on(server)
    cluster.observe()
    with pytest.raises(NotScaled, match="another controller may act now"):
        cluster.apply(np.array([5, 3]), np.zeros(2), may_act=lambda: False, floor=np.ones(2, int))
    assert server.writes == []


def test_the_client_that_last_wrote_a_maximum_is_named():
    server = two_services()
    fields = {"f:spec": {"f:maxReplicas": {}}}
    managers = [
        {"manager": "faro", "time": "2", "fieldsV1": fields},
        {"manager": "kubectl", "time": "1", "fieldsV1": fields},
    ]
    server.change(HPA, "a", metadata={"managedFields": managers})
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
        replicas = self._api.replicas
        for name, (low, high) in self._api.bounds().items():
            replicas[name] = min(max(replicas[name], low), high)


def test_the_loop_keeps_ceilings_within_the_capacity_and_reports_a_client_that_changes_one():
    server, steps = two_services(replicas=(4, 4)), []
    cluster = Ticks(server, REFS, Measured(0.0, 0.0), Clock.starting_now(), 8.0)

    def seen(step):
        steps.append((step, server.bounds()))
        if len(steps) > 3:
            server.change(HPA, "b", spec={"maxReplicas": 7})

    loop.run(cluster, Bounds([9, 2], [2, 1]), JOBS, 100.0, on_step=seen)
    assert steps[0][0].target.tolist() == [6, 2], "the sum is cut to the capacity"
    assert steps[1][1] == {"a": (2, 6), "b": (1, 2)}
    assert all(one["a"][1] + min(one["b"][1], 4) <= 8 for _, one in steps)
    assert steps[-1][0].plan.reason[1] == CONTESTED


class Once(Bounds):
    """Plans at 10 s, and holds afterwards, as Faro does for minutes."""

    def decide(self, state, observation):
        return state, self.plan if observation.now_s <= 10 else hold(observation)


def test_bounds_that_an_operator_sets_while_no_controller_leads_stay_until_the_next_plan(tmp_path):
    server = two_services()
    leader = {"guardrails": LiveGuardrails(), "journal": tmp_path / "j"}

    def lead(until_s, **options):
        cluster, steps = Ticks(server, REFS, Measured(0.0, 0.0), Clock.starting_now(), 16.0), []
        policy = Once([5, 3], [2, 1])
        loop.run(cluster, policy, JOBS, until_s, on_step=steps.append, **leader, **options)
        return steps

    lead(35.0)
    assert server.bounds() == {"a": (2, 5), "b": (1, 3)}
    server.change(HPA, "a", spec={"minReplicas": 3, "maxReplicas": 8})
    steps = lead(65.0, takes_over=True)
    assert server.bounds() == {"a": (3, 8), "b": (1, 3)}
    assert {reason for step in steps for reason in step.plan.reason} == {HOLD}


def test_bounds_that_an_operator_sets_under_a_leader_are_restored_at_the_next_tick():
    server = two_services()
    cluster = Ticks(server, REFS, Measured(0.0, 0.0), Clock.starting_now(), 16.0)

    def change(step):
        if step.observation.now_s == 30.0:
            server.change(HPA, "a", spec={"maxReplicas": 8})

    loop.run(cluster, Once([5, 3], [2, 1]), JOBS, 55.0, on_step=change)
    assert server.bounds() == {"a": (2, 5), "b": (1, 3)}


def test_an_hpa_that_scales_before_the_first_plan_is_not_another_client():
    server, steps = two_services(replicas=(1, 1)), []
    cluster = Ticks(server, REFS, Measured(0.0, 0.0), Clock.starting_now(), 8.0)

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
    class WithPast(Ticks):
        """Its first tick has minutes before it, of which one job has no data."""

        def advance(self, until_s):
            super().advance(960.0 + until_s)

    server = two_services(bounds=((1, 4), (3, 4)))
    blind = Measured(np.array([0.0, np.nan]), 0.0)
    cluster = WithPast(server, REFS, blind, Clock.starting_now(), 8.0)
    loop.run(
        cluster,
        Bounds([5, 1], [2, 1]),
        JOBS,
        300.0,
        guardrails=LiveGuardrails(stale_after_s=0.0),
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
    found = None if changed is None else hpa("a")
    if found:
        found["metadata"] |= changed
    with pytest.raises(ValueError, match=message):
        check_bounded(REFS, [found, hpa("b")])


@pytest.mark.parametrize(("least", "low", "needed"), [(0, 1, 1), (0, 0, 1), (2, 3, 3)])
def test_a_job_keeps_at_least_the_replicas_of_its_hpa_and_one(least, low, needed):
    """Faro may set minReplicas to the table's min_replicas."""
    told = f"min_replicas={least}, but its HPA keeps {low}"
    problem = f"^job 'a': {told}; write min_replicas: {needed} into the table$"
    ref = DeploymentRef.of(Job("a", min_replicas=least), SECTION, "jobs")
    with pytest.raises(ValueError, match=problem):
        check_bounded([ref], [hpa("a", low, 4)])
    check_bounded([replace(ref, job=Job("a", min_replicas=needed))], [hpa("a", low, 4)])


def test_the_bounds_that_count_for_the_check_are_those_before_faro():
    server = two_services(bounds=((2, 4), (1, 4)))
    refs = [replace(REFS[0], job=Job("a", min_replicas=2)), REFS[1]]
    applied(server, [4, 4], [3, 1])
    check_bounded(refs, server.all(HPA))
    with pytest.raises(ValueError, match=r"^job 'a': min_replicas=1, but its HPA keeps 2"):
        check_bounded(REFS, server.all(HPA))


def test_an_operator_may_fix_fewer_replicas_than_an_hpa_keeps():
    fixed = replace(REFS[0], job=Job("a", min_replicas=1, max_replicas=1))
    check_bounded([fixed], [hpa("a", 2, 4)])


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


def test_a_policy_without_a_table_of_utilities_cannot_set_bounds():
    from faro_lib.policies import AIAD

    with pytest.raises(
        ValueError, match=r"^policy='AIAD' makes no predictions; accepted: Faro-Sum"
    ):
        AsBounds.of(AIAD())


def test_the_status_has_the_replicas_that_each_hpa_asks_for():
    """`desiredReplicas` is maxReplicas, which is no count to freeze a job at."""
    server = two_services(replicas=(3, 2))
    applied(server, [5, 3])
    seen = cluster_on(server).observe()
    step = Step(seen, hold(seen), seen.target, 0.0)
    rows = status_of(JOBS, step, "me", "now", "since")["jobs"]
    assert [row["desiredReplicas"] for row in rows] == [5, 3]
    assert [row["requestedReplicas"] for row in rows] == [3, 2]
