"""Deployments on the nodes of a ClusterApi, and a controller that scales them.

Time is a number that the test advances, and nothing waits.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from kube_api import ClusterApi
from kube_things import DEPLOYMENT, NODE, POD, QUOTA, Measured, node

from faro_lib.control import Memory, Step
from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.job_states import JobStates
from faro_ops.operate.kube.deployment_metrics import Queries
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.operate import NamespacedName, watch_capacity
from faro_ops.operate.loop.tick import tick
from faro_ops.protocol import LiveGuardrails

NAMESPACE = "jobs"
CORES = 8  # of a node


class Copy:
    """An informer that reads the world at once; `age_s` is what the test says."""

    def __init__(self, path, read):
        self.path, self.read, self.error, self.age_s = path, read, None, 0.0

    def items(self):
        return list(self.read())


class World:
    """Jobs with `replicas` each on nodes of eight cores; one core per replica."""

    def __init__(self, replicas: dict[str, int], nodes=("n1", "n2"), policy=None):
        self.jobs = tuple(Job(name, cold_start_s=5.0) for name in replicas)
        self.api = ClusterApi(replicas, dict.fromkeys(nodes, CORES))
        self.replicas = self.api.replicas
        self.guardrails = LiveGuardrails()
        self.clock = Clock.starting_now(in_s=-1000)
        self.metrics = Measured(np.full(len(self.jobs), 60.0))
        queries = Queries(requests="r[$window]", latency_mean_s="m[$window]")
        refs = [DeploymentRef(job, NAMESPACE, job.name, queries) for job in self.jobs]
        self.cluster = Deployments(self.api, refs, self.metrics, self.clock)
        plan = NamespacedName(NAMESPACE, "faro")
        watch = watch_capacity(self.api, plan, self.cluster, self.jobs)
        kinds = {"/nodes": NODE, "/pods": POD, "/quotas": QUOTA}
        self.copies = [Copy(path, partial(self.api.all, kind)) for path, kind in kinds.items()]
        watch._informers = self.copies
        self.monotonic_s = 0.0
        self.states = JobStates()
        self.gated = LeaderGatedCluster(
            self.cluster,
            watch.current,
            jobs=self.jobs,
            states=self.states,
            now_s=lambda: self.monotonic_s,
        )
        self.policy = policy or FullUse()
        self.memory = Memory.start(self.policy, self.jobs)
        self.now_s = 960.0

    # --- nodes and Deployments

    def edit_template(self, name: str, template: dict) -> None:
        """Replace the pod template of a Deployment; its pods stay as they are."""
        one = self.api.find(DEPLOYMENT, name)
        self.api.put(DEPLOYMENT, one | {"spec": one["spec"] | {"template": template}})

    def cordon(self, *names):
        for name in names:
            self.api.change(NODE, name, "", spec={"unschedulable": True})

    def silence(self, *names):
        """The nodes stop reporting; so do their pods, which still serve."""
        for name in names:
            self.api.put(NODE, node(name, str(CORES), ready=False))
        for one in self.api.all(POD):
            if one["spec"].get("nodeName") in names:
                silent = {"conditions": [{"type": "Ready", "status": "False"}]}
                self.api.put(POD, one | {"status": one["status"] | silent})

    def delete(self, *names):
        """Delete nodes with their pods, whose Deployments start others if there is room."""
        for name in names:
            self.api.remove(NODE, name, "")

    def add(self, *names):
        for name in names:
            self.api.put(NODE, node(name, str(CORES)))

    # --- the controller

    def tick(self, after_s=10.0) -> Step:
        """Observe, decide and apply once, `after_s` after the last tick."""
        self.now_s += after_s
        self.monotonic_s += after_s
        self.cluster._tick_s = self.now_s
        self.memory, step = tick(
            self.policy, self.guardrails, self.jobs, self.memory, self.gated.observe()
        )
        self.gated.apply(step.target, step.plan.drop)
        return step

    def run(self, seconds, every_s=10.0) -> dict[str, int]:
        """Tick for so long; the replicas after that."""
        for _ in range(round(seconds / every_s)):
            self.tick(every_s)
        return dict(self.replicas)


class FullUse:
    """A policy that gives every job an equal share of the capacity if that is more than it has."""

    name, tick_s = "FullUse", 10.0

    def start(self, jobs):
        return len(jobs)

    def decide(self, jobs, observation):
        from faro_lib.protocol import PLAN_ATTEMPTS, Plan

        share = int(observation.capacity // jobs)
        target = np.maximum(observation.target, share)
        return jobs, Plan(target, np.zeros(jobs), ("planned",) * jobs, PLAN_ATTEMPTS)


def replaced(template: dict, **spec) -> dict:
    """A pod template with other fields of its spec."""
    return template | {"spec": template["spec"] | spec}
