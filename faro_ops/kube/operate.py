"""Run a controller in Kubernetes: check permissions and resources, become the leader, watch the capacity, publish plans."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self

from faro_lib.control import Step
from faro_lib.policies.protocol import Cluster
from faro_lib.workload import Job
from faro_ops.controller.clock import Clock
from faro_ops.controller.overrides import Settings
from faro_ops.controller.startup import Ensure, once
from faro_ops.kube import preflight
from faro_ops.kube.capacity_watch import CapacityWatch, NodeCapacity, RayCapacity
from faro_ops.kube.client import Api, ApiError, connect
from faro_ops.kube.deployment_metrics import DeploymentMetrics
from faro_ops.kube.deployments import DeploymentRef, Deployments, shape_of
from faro_ops.kube.hpa_bounds import UNLED_S, BoundedDeployments, check_bounded, restore
from faro_ops.kube.leader_gate import InterruptibleCluster, LeaderGatedCluster
from faro_ops.kube.lease import Leadership
from faro_ops.kube.status import Reporter


@dataclass(frozen=True, slots=True)
class NamespacedName:
    """The namespace and name that the controller's FaroPlan and Lease share, and the credentials for their API server."""

    namespace: str
    name: str
    kubeconfig: str | None = (
        None  # path; None: the pod's ServiceAccount, or else the default kubeconfig
    )
    context: str | None = None  # kubeconfig context; None: the current one

    @classmethod
    def of(cls, plan: str, kubeconfig: str | None = None, context: str | None = None) -> Self:
        """Parse `plan` = "namespace/name"; ValueError if it has another form."""
        namespace, _, name = plan.partition("/")
        if not namespace or not name or "/" in name:
            raise ValueError(f"plan={plan!r} must read namespace/name")
        return cls(namespace, name, kubeconfig, context)

    def connect(self, **options: Any) -> Api:
        return connect(self.kubeconfig, self.context, **options)


def connect_deployments(
    plan: NamespacedName,
    settings: Settings,
    *,
    prometheus: str | None,
    token_path: str | None,
    clock: Clock,
    cores: float | None = None,
    ensure: Ensure = once,
    ceilings: bool = False,
    act: bool = True,
) -> Deployments:
    """A cluster of the Deployments that the jobs' table lists, in the section `deployment` of each job.

    prometheus, token_path : URL of the Prometheus server; file with its bearer token, or None if it needs none.
    cores : cores that the jobs may use; None: measured.
    ensure : runs the check that the Deployments exist, once or until it passes.
    ceilings : whether Faro sets the bounds of the Deployments' HorizontalPodAutoscalers instead of replica counts.
    act : whether plans are applied; if not, no permission to change anything is needed.

    Raises ValueError if a Deployment does not exist or a permission is missing.
    """
    if prometheus is None:
        raise ValueError(
            "backend=deployments needs --prometheus, the address of the server for the jobs' queries"
        )
    metrics, sections = (
        DeploymentMetrics(prometheus, token_path),
        settings.sections.get("deployment", {}),
    )
    api = plan.connect()
    preflight.check_server(api)
    refs = [
        DeploymentRef.of(job, sections.get(job.name, {}), plan.namespace) for job in settings.jobs
    ]
    cluster = (BoundedDeployments if ceilings else Deployments)(
        api, refs, metrics, clock, cores or 0.0
    )
    wanted = preflight.FOR_CEILINGS if ceilings else preflight.FOR_DEPLOYMENTS
    if not act:
        wanted = tuple(
            (group, resource, ("list",)) for group, resource, verbs in wanted if "list" in verbs
        )
    wanted += preflight.QUOTAS if cores is None else ()  # needed only to measure the capacity
    for namespace in sorted({ref.namespace for ref in refs}):
        here = [
            ref.autoscaler if ceilings else ref.name for ref in refs if ref.namespace == namespace
        ]
        preflight.check_permissions(api, namespace, wanted, (), preflight.names_of(plan.name, here))
    ensure(
        lambda: preflight.check_deployments(
            {str(ref): state for ref, state in zip(refs, cluster.read())}
        )
    )
    return cluster


@contextmanager
def gated_cluster(
    plan: NamespacedName,
    cluster: InterruptibleCluster,
    jobs: tuple[Job, ...],
    policy: str,
    stop: threading.Event,
    *,
    act: bool = True,
    fixed: bool = False,
    report: Callable[[str], None] = lambda line: None,
    ensure: Ensure = once,
) -> Iterator[tuple[Cluster, Callable[[Step], None]]]:
    """Wait until this controller is the leader, then yield (LeaderGatedCluster, function that publishes a tick's result).

    stop : setting it ends the wait for the lease.
    act : whether plans are applied; if not, no lease is taken and nothing is published.
    fixed : whether to use the capacity of `cluster` instead of measuring it.
    ensure : runs the checks of capacity and autoscalers, once or until they pass.

    Raises ValueError, before anything is changed, if a resource or permission is missing.
    """
    api = plan.connect()
    preflight.check_server(api)
    preflight.check_namespace(api, plan.namespace)
    on_ray = not isinstance(cluster, Deployments)
    preflight.check_crds(
        api, (preflight.FARO_PLANS, *((preflight.RAY_SERVICES,) if on_ray else ())) if act else ()
    )
    permissions = (preflight.ALWAYS if act else ()) + (
        preflight.FOR_RAY if on_ray and not fixed else ()
    )
    cluster_wide = () if fixed else preflight.CLUSTER_WIDE
    preflight.check_permissions(
        api, plan.namespace, permissions, cluster_wide, preflight.names_of(plan.name)
    )
    check_ray = partial(preflight.check_rayservice, api, plan.namespace, plan.name)
    diagnose = check_ray if on_ray and not fixed else lambda: None
    try:
        (ensure if act else once)(partial(check_scaling, cluster))
    except ValueError as error:
        if act:
            raise
        report(f"with --apply, Faro would refuse: {error}")

    with ExitStack() as stack:
        current = None
        if not fixed:
            capacity = watch_capacity(api, plan, cluster, jobs)
            stack.callback(capacity.stop)
            capacity.start()
            ensure(lambda: preflight.check_minima(jobs, capacity.current()))
            current = capacity.current
        if not act:
            yield LeaderGatedCluster(cluster, current, None, diagnose), lambda step: None
            return
        name = f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{os.getpid()}"  # identity, unique among the candidates
        # No retries and a short time-out: a renewal that hangs must fail well before the lease expires.
        leadership = Leadership(
            plan.connect(retries=0, timeout_s=2.0), plan.namespace, plan.name, name
        ).start()
        stack.callback(leadership.stop)
        report(f"{name} waits for lease {plan.namespace}/{plan.name}")
        tell = cache(
            report
        )  # prints a line only once, although the loop below reports it every half second
        while not stop.is_set() and not leadership.wait(0.5):
            restore_unled(api, cluster, leadership, tell)
        if not stop.is_set():
            report(f"{name} leads")
        reporter = Reporter(
            plan.connect(retries=1),
            plan.namespace,
            plan.name,
            policy,
            jobs,
            name,
            proxied=not on_ray,
        )
        stack.callback(reporter.close)
        yield LeaderGatedCluster(cluster, current, leadership, diagnose), reporter


def check_scaling(cluster: Cluster) -> None:
    """Raise ValueError if Faro and an HPA would both scale a Deployment, or if `check_bounded` rejects the HPAs."""
    if isinstance(cluster, BoundedDeployments):
        check_bounded(cluster.refs, cluster.autoscalers())
    elif isinstance(cluster, Deployments):
        preflight.check_autoscalers(
            {str(ref): one for ref, one in zip(cluster.refs, cluster.autoscalers())}
        )


def restore_unled(
    api: Api, cluster: Cluster, leadership: Leadership, report: Callable[[str], None]
) -> None:
    """Restore the autoscalers' original bounds if this candidate has not seen the lease change for UNLED_S seconds."""
    if isinstance(cluster, BoundedDeployments) and leadership.unled_s > UNLED_S:
        with suppress(ApiError):  # the next call, half a second later, tries again
            for line in restore(api, cluster.autoscalers()):
                report(f"nobody has led for {UNLED_S:g} s: {line}")


def watch_capacity(
    api: Api, plan: NamespacedName, cluster: Cluster, jobs: tuple[Job, ...]
) -> CapacityWatch:
    """Return a CapacityWatch, not yet started. It watches nodes if the jobs are Deployments, else Ray workers."""
    if not isinstance(cluster, Deployments):
        return RayCapacity(api, plan.namespace, plan.name)
    namespaces = {ref.namespace for ref in cluster.refs}
    if len(namespaces) > 1:
        raise ValueError(
            f"deployments: in the namespaces {sorted(namespaces)}; jobs that share capacity share one"
        )
    # In `NodeCapacity`, a selector without matchLabels would match every pod; use the pod template's labels instead.
    specs = [one["spec"] for one in cluster.objects() if one]
    selectors = [
        one["selector"].get("matchLabels") or one["template"]["metadata"]["labels"] for one in specs
    ]
    cores = [job.cores for job in jobs]
    shape_of(
        cluster.refs, cluster.seen
    )  # fail at the start, because a ValueError in a later tick does not end the run
    return NodeCapacity(
        api, namespaces.pop(), selectors, cores, lambda: shape_of(cluster.refs, cluster.seen)
    )
