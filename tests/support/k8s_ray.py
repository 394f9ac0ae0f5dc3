"""A RayService on the kind cluster.

KubeRay's operator makes its Ray from Faro's image, and node ports lead to it.
"""

from __future__ import annotations

import base64
from importlib.metadata import version
from pathlib import Path

from k8s_world import World, apply, path_of, pod_state, until
from kube_things import objects

from faro_lib.workload import Job
from faro_ops.http import HttpClient
from faro_ops.operate.kube.capacity import is_ready
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.manifests import (
    DASHBOARD_PORT,
    SECRET,
    SERVING_PORT,
    Head,
    ManifestSpec,
    Workers,
)
from faro_ops.operate.rayserve.deploy import APPLICATIONS
from faro_ops.operate.rayserve.spec import serve_specs

IMAGE = "faro:local"
READY_S = 300.0
HEAD = Head(0.3, 2.0)
SIZE = Workers(2, 4, 2.0, 0.3)
OPERATOR = "/api/v1/namespaces/kuberay-system/pods"


class WorldWithRayService(World):
    """A namespace whose RayService, which `service` reads, is deleted before everything else."""

    def service(self) -> dict:
        raise NotImplementedError

    def close(self) -> None:
        """The RayService first: its operator would make pods again."""
        try:
            self.api.send(
                "DELETE", path_of({"kind": "RayService", "metadata": self.service()["metadata"]})
            )
        except ApiError as gone:
            if gone.status != 404:
                raise
        super().close()


class RayWorld(WorldWithRayService):
    """A namespace with a RayService named "ray": two workers of four cores each.

    Attributes
    ----------
    url, http : the head's dashboard and its applications, by node ports that follow the head.
    token : what Ray wants.
    """

    def __init__(
        self, folder: Path, jobs: tuple[Job, ...], initial: tuple[int, ...], token: str = "first"
    ):
        super().__init__(folder)
        if not self.operators():  # after an outage it waits for up to five minutes
            going = self.delete_operator()
            until(lambda: self.operators() - going, 120, "another operator is ready")
        self.set_token(token)
        self.describe(jobs, initial)
        ports = {"dashboard": DASHBOARD_PORT, "serve": SERVING_PORT}
        spec = {
            "type": "NodePort",
            "selector": {"ray.io/node-type": "head"},
            "ports": [
                {"name": name, "port": port, "targetPort": port} for name, port in ports.items()
            ],
        }
        meta = {"name": "outside", "namespace": self.namespace}
        apply(self.api, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        node = self.api.get("/api/v1/nodes")["items"][0]
        host = next(
            one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"
        )
        found = self.get("/api/v1/{ns}/services/outside")["spec"]["ports"]
        self.url, self.http = (f"http://{host}:{port['nodePort']}" for port in found)
        self.until_ready()

    def set_token(self, token: str) -> None:
        self.token = token
        meta = {"name": SECRET, "namespace": self.namespace}
        data = {"auth_token": base64.b64encode(token.encode()).decode()}
        apply(self.api, {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})

    def describe(self, jobs: tuple[Job, ...], initial: tuple[int, ...], **serve) -> None:
        """Apply the RayService; `serve` goes into the section of every job."""
        how = serve_specs(jobs, {job.name: serve for job in jobs})
        where = dict(namespace=self.namespace, name="ray", image=IMAGE, ray_version=version("ray"))
        spec = ManifestSpec(jobs, "", served=how, initial=initial, workers=SIZE, head=HEAD, **where)
        (thing,) = objects(spec, "rayservice.yaml")
        cluster = thing["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            group["template"]["spec"]["terminationGracePeriodSeconds"] = 1
        apply(self.api, thing)

    @property
    def rest(self) -> HttpClient:
        return HttpClient(self.url, self.token)

    def service(self) -> dict:
        meta = {"name": "ray", "namespace": self.namespace}
        return self.api.get(path_of({"kind": "RayService", "metadata": meta}))

    def until_ready(self) -> None:
        def ready():
            conditions = self.service().get("status", {}).get("conditions", [])
            return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

        until(ready, READY_S, "the RayService is ready")

    def counts(self) -> dict[str, int]:
        """Replicas that Ray is asked for, by application, except that of the statistics.

        Empty while Ray is away.
        """
        try:
            states = self.rest.get(APPLICATIONS)["applications"]
        except OSError:
            return {}
        return {
            name: one["deployments"]["replica"]["target_num_replicas"]
            for name, one in states.items()
            if "replica" in one.get("deployments", {}) and one["status"] != "DELETING"
        }

    def scale(self, job: str, count: int) -> None:
        """As somebody else might."""
        path = f"/api/v1/applications/{job}/deployments/replica/scale"
        self.rest.post(path, {"target_num_replicas": count})

    def pods(self, kind: str) -> list[dict]:
        """That are not on their way out."""
        found = self.get("/api/v1/{ns}/pods", labelSelector=f"ray.io/node-type={kind}")["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def delete(self, kind: str) -> str:
        return self.delete_pod(self.pods(kind)[0]["metadata"]["name"])

    def delete_pod(self, name: str) -> str:
        self.api.send("DELETE", self.path(f"/api/v1/{{ns}}/pods/{name}"))
        return name

    def state(self) -> str:
        """Counts, conditions and pods: for the message of a test that waits in vain."""
        conditions = self.service().get("status", {}).get("conditions", [])
        not_true = [
            f"{one['type']}={one['status']}: {one.get('message', '')}"
            for one in conditions
            if one["status"] != "True"
        ]
        pods = self.get("/api/v1/{ns}/pods")["items"]
        return "\n".join([f"replicas {self.counts()}", *not_true, *map(pod_state, pods)])

    def operators(self) -> set[str]:
        """Names of the operator's pods that are ready."""
        return {pod["metadata"]["name"] for pod in self.api.get(OPERATOR)["items"] if is_ready(pod)}

    def delete_operator(self) -> set[str]:
        """Another one comes; the names of those that go."""
        going = {pod["metadata"]["name"] for pod in self.api.get(OPERATOR)["items"]}
        for name in going:
            self.api.send("DELETE", f"{OPERATOR}/{name}")
        return going
