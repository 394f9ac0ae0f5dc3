"""A controller in Kubernetes: everything checked first, then led by a lease, its capacity watched, its plans published."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from faro_lib.control import Step
from faro_lib.control.clock import Clock
from faro_lib.kube import preflight
from faro_lib.kube.client import Api, connect
from faro_lib.kube.deployment_metrics import DeploymentMetrics
from faro_lib.kube.deployments import DeploymentRef, Deployments, shape_of
from faro_lib.kube.leader_gate import ClusterCapacity, LeaderGatedCluster
from faro_lib.kube.lease import Leadership, LeaseTimings
from faro_lib.kube.status import Reporter
from faro_lib.policies.protocol import Cluster
from faro_lib.workload import Job

WORKERS = {"ray.io/node-type": "worker"}
TERMS = LeaseTimings()


@dataclass(frozen=True, slots=True)
class NamespacedName:
    """Where a controller is at home.

    Attributes
    ----------
    namespace, plan : of its FaroPlan and of its lease, which have the same name.
    kubeconfig, context : how the API server is reached; None: the pod's ServiceAccount, or the default kubeconfig.
    """

    namespace: str
    plan: str
    kubeconfig: str | None = None
    context: str | None = None

    @classmethod
    def of(cls, plan: str, kubeconfig: str | None = None, context: str | None = None) -> NamespacedName:
        """From "namespace/name"."""
        namespace, _, name = plan.partition("/")
        if not namespace or not name or "/" in name:
            raise ValueError(f"plan={plan!r} must read namespace/name")
        return cls(namespace, name, kubeconfig, context)

    def connect(self, **options) -> Api:
        return connect(self.kubeconfig, self.context, **options)


def identity() -> str:
    """Of this controller among those that want the lease."""
    return f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{os.getpid()}"


def connect_deployments(
    place: NamespacedName,
    jobs: tuple[Job, ...],
    sections: dict[str, dict],
    prometheus: DeploymentMetrics,
    clock: Clock,
    cores: float | None = None,
) -> Deployments:
    """`Cluster` on the Deployments that the table names.

    Parameters
    ----------
    cores : what they may use; None leaves it to the capacity that Kubernetes has.

    Raises
    ------
    ValueError : one is not there; one line.
    """
    api = place.connect()
    preflight.check_server(api)
    addresses = [DeploymentRef.of(job, sections.get(job.name, {}), place.namespace) for job in jobs]
    cluster = Deployments(api, addresses, prometheus, clock, cores or 0.0)
    for namespace in sorted({address.namespace for address in addresses}):
        preflight.check_permissions(api, namespace, preflight.FOR_DEPLOYMENTS, ())
    preflight.check_deployments({f"{a.namespace}/{a.name}": found for a, found in zip(addresses, cluster.read())})
    return cluster


@contextmanager
def gated_cluster(
    place: NamespacedName,
    cluster: Cluster,
    jobs: tuple[Job, ...],
    policy: str,
    stop: threading.Event,
    *,
    act: bool = True,
    fixed: bool = False,
    terms: LeaseTimings = TERMS,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[Cluster, Callable[[Step], None]]]:
    """The cluster as Kubernetes governs it, once this controller leads, and whom to tell of every tick.

    Parameters
    ----------
    stop : set, nobody waits for the lease any more.
    act : whether plans are carried out; without, no lease is taken and nothing is published.
    fixed : the cluster's own capacity counts, and that of Kubernetes is not asked for.

    Raises
    ------
    ValueError : what is missing or forbidden; one line, and nothing has been changed.
    """
    api = place.connect()
    preflight.check_server(api)
    preflight.check_namespace(api, place.namespace)
    kinds = (
        [preflight.FARO_PLANS] if isinstance(cluster, Deployments) else [preflight.FARO_PLANS, preflight.RAY_SERVICES]
    )
    preflight.check_crds(api, kinds if act else [])
    preflight.check_permissions(
        api, place.namespace, preflight.ALWAYS if act else (), () if fixed else preflight.CLUSTER_WIDE
    )
    capacity = None if fixed else watched(api, place, cluster, jobs)
    try:
        if capacity is not None:
            preflight.check_minima(jobs, capacity.start()())
        if not act:
            yield LeaderGatedCluster(cluster, capacity), lambda step: None
            return
        me = identity()
        # Short and impatient: a renewal that hangs must end well before the lease does.
        leadership = Leadership(place.connect(retries=0, timeout_s=2.0), place.namespace, place.plan, me, terms).start()
        try:
            report(f"{me} waits for lease {place.namespace}/{place.plan}")
            while not stop.is_set() and not leadership.wait(0.5):
                pass
            if not stop.is_set():
                report(f"{me} leads")
            reporter = Reporter(place.connect(retries=1), place.namespace, place.plan, policy, jobs, me)
            try:
                yield LeaderGatedCluster(cluster, capacity, leadership), reporter
            finally:
                reporter.close()
        finally:
            leadership.stop()
    finally:
        if capacity is not None:
            capacity.stop()


def watched(api: Api, place: NamespacedName, cluster: Cluster, jobs: tuple[Job, ...]) -> ClusterCapacity:
    """Capacity for pods of Deployments, or inside Ray's workers."""
    if not isinstance(cluster, Deployments):
        return ClusterCapacity(api, place.namespace, (WORKERS,), None)
    namespaces = {address.namespace for address in cluster.addresses}
    if len(namespaces) > 1:
        raise ValueError(f"deployments: in the namespaces {sorted(namespaces)}; jobs that share capacity share one")
    found = [one for one in cluster.objects() if one]
    # A selector without labels would be true of every pod; those of the template are true of ours.
    labels = tuple(
        one["spec"]["selector"].get("matchLabels") or one["spec"]["template"]["metadata"]["labels"] for one in found
    )
    return ClusterCapacity(api, namespaces.pop(), labels, shape_of(list(jobs), found))
