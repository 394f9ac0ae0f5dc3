"""Deployments on a fake Kubernetes: nodes, pods, a scheduler, and a controller that scales them.

Time is a number that the test advances, and nothing waits.
"""

from __future__ import annotations

import numpy as np
from kube_things import measured, node, pod

from faro_lib.control import GuardrailConfig, Memory, Step
from faro_lib.workload import Job
from faro_ops.operate.kube.deployment_metrics import Queries
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.operate import NamespacedName, watch_capacity
from faro_ops.operate.loop.clock import Clock
from faro_ops.operate.loop.job_states import JobStates
from faro_ops.operate.loop.tick import tick

NAMESPACE = "jobs"


class Copy:
    """An informer that reads the world at once; `age_s` is what the test says."""

    def __init__(self, path, read):
        self.path, self.read, self.error, self.age_s = path, read, None, 0.0

    def items(self):
        return list(self.read())


class Measured:
    """A Prometheus in which every job has `counts` requests per minute (jobs,)."""

    def __init__(self, jobs):
        self.counts = np.full(jobs, 60.0)

    def observe(self, queries, ends, now_s, minute_s):
        return measured(np.repeat(self.counts[:, None], len(ends), 1), 0.1 * np.ones(len(queries)))


class World:
    """Jobs with `replicas` each on nodes of eight cores; one core per replica."""

    def __init__(self, replicas: dict[str, int], nodes=("n1", "n2"), policy=None):
        self.jobs = tuple(Job(name, cold_start_s=5.0) for name in replicas)
        self.nodes = {name: node(name, "8") for name in nodes}
        self.quotas: list[dict] = []
        self.others: list[dict] = []  # pods that are no replicas
        self.replicas = dict(replicas)
        self.gone: set[str] = set()  # jobs without a Deployment
        self.guardrails = GuardrailConfig()
        self.templates = {job.name: pod("template", "1") for job in self.jobs}
        self.pods: dict[str, list[dict]] = {job.name: [] for job in self.jobs}
        self.serial = 0
        self.schedule()

        self.clock = Clock.starting_now(in_s=-1000)
        self.metrics = Measured(len(self.jobs))
        queries = Queries("r[$window]", "m[$window]")
        refs = [DeploymentRef(job, NAMESPACE, job.name, queries) for job in self.jobs]
        self.cluster = Deployments(self, refs, self.metrics, self.clock)
        watch = watch_capacity(self, NamespacedName(NAMESPACE, "faro"), self.cluster, self.jobs)
        self.copies = [
            Copy("/nodes", lambda: self.nodes.values()),
            Copy("/pods", lambda: [*self.replicas_of_all(), *self.others]),
            Copy("/quotas", lambda: self.quotas),
        ]
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

    # --- the API server

    def get(self, path, **_):
        if path.endswith("/deployments"):
            there = [job.name for job in self.jobs if job.name not in self.gone]
            return {"items": [self.deployment(name) for name in there]}
        return {"items": []}

    def deployment(self, name):
        count = self.replicas[name]
        ready = sum(bool(one["spec"].get("nodeName")) for one in self.pods[name])
        meta = {"name": name, "namespace": NAMESPACE, "resourceVersion": "1", "generation": 1}
        spec = {
            "replicas": count,
            "selector": {"matchLabels": {"app": name}},
            "template": self.templates[name],
        }
        status = {"observedGeneration": 1, "replicas": count, "readyReplicas": ready}
        return {"metadata": meta, "spec": spec, "status": status}

    def send(self, method, path, body, **_):
        self.replicas[path.split("/")[-2]] = body["spec"]["replicas"]
        self.schedule()
        return {"metadata": {"resourceVersion": "1"}}

    # --- nodes and pods

    def schedule(self):
        """Delete surplus pods, pending ones first, and start missing ones where there is room."""
        for name, pods in self.pods.items():
            pods.sort(key=lambda one: not one["spec"].get("nodeName"))
            del pods[self.replicas[name] :]
            while len(pods) < self.replicas[name]:
                self.serial += 1
                pods.append(pod(f"{name}-{self.serial}", on=None, labels={"app": name}))
        for one in self.replicas_of_all():
            if "nodeName" not in one["spec"]:
                free = {name: self.free(name) for name in self.nodes}
                best = max(free, key=free.get, default=None)
                if best is not None and free[best] >= 1:
                    one["spec"]["nodeName"] = best

    def replicas_of_all(self):
        """The pods of all jobs."""
        return [one for pods in self.pods.values() for one in pods]

    def free(self, name):
        """Free cores for new pods on a node."""
        one = self.nodes[name]
        if one["spec"].get("unschedulable") or one["status"]["conditions"][0]["status"] != "True":
            return 0
        running = [*self.replicas_of_all(), *self.others]
        return 8 - sum(each["spec"].get("nodeName") == name for each in running)

    def cordon(self, *names):
        for name in names:
            self.nodes[name]["spec"]["unschedulable"] = True

    def silence(self, *names):
        """The nodes stop reporting; so do their pods, which still serve."""
        for name in names:
            self.nodes[name]["status"]["conditions"][0]["status"] = "Unknown"
            for one in self.replicas_of_all():
                if one["spec"].get("nodeName") == name:
                    one["status"]["conditions"][0]["status"] = "False"

    def delete(self, *names):
        """Delete nodes with their pods, whose Deployments start others if there is room."""
        for name in names:
            del self.nodes[name]
            for pods in self.pods.values():
                pods[:] = [one for one in pods if one["spec"].get("nodeName") != name]
        self.schedule()

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
