"""The clusters that `faro run` can control: Ray Serve, here or elsewhere, and Deployments of Kubernetes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faro_lib.cli.shared import say

if TYPE_CHECKING:
    from faro_lib.control.clock import Clock
    from faro_lib.control.startup import Ensure
    from faro_lib.kube.leader_gate import InterruptibleCluster
    from faro_lib.kube.operate import NamespacedName
    from faro_lib.policies import Policy
    from faro_lib.workload import Job

BACKENDS = ("local", "rayserve", "deployments")


@dataclass(frozen=True, slots=True)
class Backend:
    """Where the jobs are served, and how the cluster is reached: options of `faro run` by their names."""

    name: str
    jobs: str
    capacity: int | None
    address: str | None
    serve_address: str | None
    plan: str | None
    kubeconfig: str | None
    context: str | None
    prometheus: str | None
    prometheus_token: str | None

    def __post_init__(self):
        if self.name not in BACKENDS:
            raise ValueError(f"backend={self.name!r} is unknown; accepted: {', '.join(BACKENDS)}")

    def home(self) -> NamespacedName | None:
        """The controller's own FaroPlan in Kubernetes; None outside of it."""
        if self.plan is None:
            if self.name == "deployments":
                raise ValueError("backend=deployments needs --plan NAMESPACE/NAME")
            return None
        from faro_lib.kube.operate import NamespacedName

        logging.basicConfig(level=logging.INFO, format="faro: %(message)s")
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it logs every attempt; we report the outcome
        return NamespacedName.of(self.plan, self.kubeconfig, self.context)

    @contextmanager
    def cluster(
        self, home: NamespacedName | None, table: tuple[Job, ...], clock: Clock, policy: Policy, ensure: Ensure
    ) -> Iterator[InterruptibleCluster]:
        """The cluster that serves the jobs, for as long as it is needed.

        ensure : how the checks that it serves are made.
        """
        if home is not None and self.name == "deployments":
            yield self._deployments(home, table, clock, ensure)
        else:
            with self._ray(home, table, clock, policy, ensure) as cluster:
                yield cluster

    def _deployments(
        self, home: NamespacedName, table: tuple[Job, ...], clock: Clock, ensure: Ensure
    ) -> InterruptibleCluster:
        """The Deployments that the sections `deployment` of the table name."""
        from faro_lib.kube.deployment_metrics import DeploymentMetrics
        from faro_lib.kube.operate import connect_deployments
        from faro_lib.workload.readers import read_sections

        if self.prometheus is None:
            raise ValueError("backend=deployments needs --prometheus, the address of the server for the jobs' queries")
        metrics = DeploymentMetrics(self.prometheus, self.prometheus_token)
        sections = read_sections(self.jobs, "deployment")
        return connect_deployments(home, table, sections, metrics, clock, self.capacity, ensure)

    @contextmanager
    def _ray(
        self, home: NamespacedName | None, table: tuple[Job, ...], clock: Clock, policy: Policy, ensure: Ensure
    ) -> Iterator[InterruptibleCluster]:
        """Ray Serve: started here (local), or at --address."""
        from faro_lib.memory import must_fit, ray_gb
        from faro_lib.rayserve.backend import serving
        from faro_lib.rayserve.cluster import RayServeCluster
        from faro_lib.rayserve.spec import serve_specs
        from faro_lib.workload.readers import read_sections

        how = serve_specs(table, read_sections(self.jobs, "serve") if self.jobs.endswith((".yaml", ".yml")) else {})
        if self.name == "local":
            if self.capacity is None:
                raise ValueError("backend=local needs --capacity, the cores of the cluster that it starts")
            must_fit(f"{self.capacity} replicas of Ray Serve need", ray_gb(self.capacity), "take fewer replicas")
        initial = policy.initial(table, self.capacity) if self.capacity else [1] * len(table)
        addresses = {"address": self.address, "serve_address": self.serve_address}
        with serving(self.name, table, how, initial, self.capacity or 0, report=say, **addresses) as endpoint:
            cluster = RayServeCluster(table, how, endpoint.ray, endpoint.http, clock, self.capacity)
            if home and self.name == "rayserve" and self.capacity is None:
                from faro_lib.kube.preflight import check_rayservice

                ensure(lambda: check_rayservice(home.connect(), home.namespace, home.name))
            ensure(cluster.connect)
            say(f"serving at {endpoint.http.address}, Ray at {endpoint.ray.address}")
            yield cluster
