"""On a kind cluster: a plan that its nodes cannot hold is cut, and no pod is left Pending.

The reason is then `fragmented`.
"""

from __future__ import annotations

import contextlib
import math
import time

import numpy as np
import pytest
from k8s_world import World, apply, table, until

from faro_lib.control import Memory
from faro_lib.policies import FairShare
from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube.capacity import Shape
from faro_ops.operate.kube.capacity_watch import NodeCapacity
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.shape import shape_of
from faro_ops.operate.loop.tick import tick
from faro_ops.protocol import FRAGMENTED, LiveGuardrails

pytestmark = pytest.mark.k8s


def tenths(cores: float) -> float:
    """Cores as a job may have them, rounded down."""
    return math.floor(10 * cores + 1e-6) / 10


WANTED = np.array([2, 1])
FILLER = "filler"


class Wanting(FairShare):
    """A policy whose plan is always WANTED."""

    def decide(self, state, observation):
        after, plan = super().decide(state, observation)
        return after, type(plan)(WANTED, plan.drop, ("planned",) * 2)


class Nodes(World):
    """Two jobs: a node with a replica of one has no room for a replica of the other.

    Each has one replica, and so each worker has less room than a large replica, but both together
    have more. A pod that does nothing first makes the two nodes equal, whatever else runs on them.
    """

    def fill(self) -> None:
        by_node = self.free()
        (fuller, least), (emptier, most) = sorted(by_node.items(), key=lambda one: one[1])
        if most - least > 0.05:
            apply(self.api, self.deployment(FILLER, cpu=most - least, nodeName=emptier))
            until(
                lambda: self.free()[emptier] <= least + 0.01,
                60,
                lambda: f"{emptier} is as full as {fuller}",
            )
        free = list(self.free().values())
        self.large = tenths(0.6 * max(free))
        # Beside a large one, no node has room for it.
        self.small = tenths(max(free) - self.large) + 0.1
        assert 0 < max(self.large, self.small) <= min(free), (
            f"the nodes have too little room: {free} cores"
        )
        self.jobs = (
            Job("large", cores=self.large, cold_start_s=5),
            Job("small", cores=self.small, cold_start_s=5),
        )
        apply(self.api, *(self.deployment(job.name, cpu=job.cores) for job in self.jobs))
        until(lambda: self.running() == 2, 60, "a replica of each")

    def free(self) -> dict[str, float]:
        """Free cores of the two workers."""
        shape = Shape(quantum=0.1)
        source = NodeCapacity(
            self.api, self.namespace, tuple, (), lambda nodes: (shape, {})
        ).start()
        try:
            found = dict(source.current().by_node)
        finally:
            source.stop()
        assert len(found) == 2
        return found

    def phases(self) -> list[str]:
        """Of the jobs' pods."""
        jobs = self.get("/api/v1/{ns}/pods", labelSelector=f"app!={FILLER}")["items"]
        return [pod["status"]["phase"] for pod in jobs]

    def running(self) -> int:
        return self.phases().count("Running")


@pytest.fixture
def nodes(tmp_path):
    with contextlib.closing(Nodes(tmp_path)) as one:
        one.fill()
        yield one


def test_a_plan_within_the_sum_of_free_cores_that_no_node_has_room_for_is_cut(nodes, prometheus):
    rows = table([job.name for job in nodes.jobs])
    refs = [
        DeploymentRef.of(job, row["deployment"], nodes.namespace)
        for job, row in zip(nodes.jobs, rows)
    ]
    cluster = Deployments(
        nodes.api, refs, DeploymentMetrics(prometheus.url), Clock.starting_now(in_s=-901)
    )
    selectors = tuple({"app": job.name} for job in nodes.jobs)
    shape = shape_of(cluster.refs, cluster.objects())
    source = NodeCapacity(
        nodes.api,
        nodes.namespace,
        lambda: selectors,
        [job.cores for job in nodes.jobs],
        lambda nodes: shape,
    ).start()
    gated = LeaderGatedCluster(cluster, source.current, jobs=nodes.jobs)
    try:
        seen = gated.observe()
        assert seen.capacity >= WANTED @ [nodes.large, nodes.small], "the sum would hold the plan"
        policy = Wanting()
        _, step = tick(policy, LiveGuardrails(), nodes.jobs, Memory.start(policy, nodes.jobs), seen)
        assert step.target.tolist() == [1, 1]
        assert step.plan.reason[0] == FRAGMENTED
        gated.apply(step.target, step.plan.drop)
        assert nodes.phases() == ["Running"] * 2

        cluster.apply(WANTED, np.zeros(2))  # what the cut has avoided
        until(
            lambda: sorted(nodes.phases()) == ["Pending", "Running", "Running"], 30, "a third pod"
        )
        time.sleep(3)
        assert sorted(nodes.phases()) == ["Pending", "Running", "Running"], (
            "no node has room for it"
        )
    finally:
        source.stop()
