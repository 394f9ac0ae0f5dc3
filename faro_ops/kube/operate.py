"""Set up a controller in Kubernetes. `faro run` does so for each version of its settings.

`connect_deployments`, if the jobs are Deployments:

1. Parse the jobs' sections `deployment`.
2. Check the permissions on the Deployments, and that the Deployments exist.

`gated_cluster`, for Deployments and for a RayService:

3. Check the namespace, the CRDs, the controller's permissions, and that no HPA scales the jobs too.
4. Watch the capacity, and check that it holds the jobs' minimum replicas.
5. Wait until this controller is the leader. Until here, nothing in Kubernetes is changed.
6. Publish the result of every tick in the FaroPlan.

A dry run ends with step 4. preflight.py has the checks of steps 2 to 4.

If a step fails, or when the caller leaves `gated_cluster`, what was started is stopped in reverse
order: publishing, leadership (the lease is released), watching the capacity. Replicas, bounds of
HPAs and the FaroPlan stay as they are. A set-up takes over nothing from an earlier one, which its
caller ends first. If the set-up for changed settings fails, the caller therefore has to begin again
at step 1 with the former settings, and to acquire the lease again.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self

from faro_lib.control import Step
from faro_lib.protocol import Cluster
from faro_lib.workload import Job
from faro_ops.controller.clock import Clock
from faro_ops.controller.job_states import JobStates
from faro_ops.controller.overrides import Settings
from faro_ops.controller.startup import Ensure, once
from faro_ops.kube import preflight
from faro_ops.kube.capacity_watch import CapacityWatch, NodeCapacity, RayCapacity
from faro_ops.kube.client import Api, ApiError, connect
from faro_ops.kube.deployment_metrics import DeploymentMetrics
from faro_ops.kube.deployments import DeploymentRef, Deployments
from faro_ops.kube.hpa_bounds import UNLED_S, BoundedDeployments, check_bounded, restore
from faro_ops.kube.leader_gate import LeaderGatedCluster
from faro_ops.kube.lease import Leadership, candidate_identity
from faro_ops.kube.shape import ShapeWatch
from faro_ops.kube.status import Reporter
from faro_ops.policies.protocol import LiveCluster


@dataclass(frozen=True, slots=True)
class NamespacedName:
    """The namespace and name of the controller's FaroPlan and Lease, and credentials for them."""

    namespace: str
    name: str
    # Path; None: the pod's ServiceAccount, or else the default kubeconfig.
    kubeconfig: str | None = None
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


# --- steps 1 and 2: the Deployments ---------------------------------------------------------------


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
    states: JobStates | None = None,
) -> Deployments:
    """A cluster of the Deployments that the jobs' table lists, in each job's section `deployment`.

    prometheus : URL of the Prometheus server.
    token_path : file with its bearer token, or None if it needs none.
    cores : cores that the jobs may use; None: measured.
    ensure : runs the check that the Deployments exist, once or until it passes.
    ceilings : whether Faro sets the bounds of the Deployments' HorizontalPodAutoscalers instead of
        replica counts.
    act : whether plans are applied; if not, no permission to change anything is needed.
    states : board on which jobs whose data is missing are reported.

    Raises ValueError if a Deployment does not exist or a permission is missing.
    """
    if prometheus is None:
        problem = "needs --prometheus, the address of the server for the jobs' queries"
        raise ValueError(f"backend=deployments {problem}")
    metrics = DeploymentMetrics(prometheus, token_path, states=states)
    api = plan.connect()
    preflight.check_server(api)

    # Step 1: the jobs' sections.
    sections = settings.sections.get("deployment", {})
    refs = [
        DeploymentRef.of(job, sections.get(job.name, {}), plan.namespace) for job in settings.jobs
    ]
    if ceilings:
        owner = f"{plan.namespace}/{plan.name}"
        cluster: Deployments = BoundedDeployments(
            api, refs, metrics, clock, cores or 0.0, owner=owner
        )
    else:
        cluster = Deployments(api, refs, metrics, clock, cores or 0.0)

    # Step 2: permissions and Deployments.
    wanted = preflight.FOR_CEILINGS if ceilings else preflight.FOR_DEPLOYMENTS
    if not act:
        wanted = preflight.only_list(wanted)
    if cores is None:  # quotas limit the capacity that is measured
        wanted += preflight.QUOTAS
    for namespace in sorted({ref.namespace for ref in refs}):
        here = [ref for ref in refs if ref.namespace == namespace]
        changed = [ref.autoscaler if ceilings else ref.name for ref in here]
        names = preflight.names_of(plan.name, changed)
        preflight.check_permissions(api, namespace, wanted, (), names)
    ensure(lambda: preflight.check_deployments(by_place(refs, cluster.read())))
    return cluster


# --- steps 3 to 6: the controller -----------------------------------------------------------------


@contextmanager
def gated_cluster(
    plan: NamespacedName,
    cluster: LiveCluster,
    jobs: tuple[Job, ...],
    policy: str,
    stop: threading.Event,
    *,
    act: bool = True,
    fixed: bool = False,
    report: Callable[[str], None] = lambda line: None,
    ensure: Ensure = once,
    states: JobStates | None = None,
) -> Iterator[tuple[Cluster, Callable[[Step], None]]]:
    """Yield (LeaderGatedCluster, function that publishes a tick's result) once this process leads.

    stop : setting it ends the wait for the lease.
    act : whether plans are applied; if not, no lease is taken and nothing is published.
    fixed : whether to use the capacity of `cluster` instead of measuring it.
    ensure : runs the checks of capacity and autoscalers, once or until they pass.
    states : board on which misconfigured jobs are reported.

    Raises ValueError, before anything is changed, if a resource or permission is missing.
    """
    # Step 3: checks that need nothing running.
    api = plan.connect()
    on_ray = not isinstance(cluster, Deployments)
    check_controller(api, plan, on_ray=on_ray, act=act, fixed=fixed)
    if act:
        ensure(partial(check_scaling, cluster))
    else:
        try:
            check_scaling(cluster)
        except ValueError as error:
            report(f"with --apply, Faro would refuse: {error}")

    check_ray = partial(preflight.check_rayservice, api, plan.namespace, plan.name)
    diagnose = check_ray if on_ray and not fixed else lambda: None

    with ExitStack() as started:
        # Step 4: the capacity.
        current = None
        if not fixed:
            watch = started.enter_context(watched_capacity(api, plan, cluster, jobs, ensure))
            current = watch.current
        if not act:
            gated = LeaderGatedCluster(cluster, current, None, diagnose, jobs, states)
            yield gated, lambda step: None
            return
        # Step 5: the lease.
        identity = candidate_identity()
        leadership = started.enter_context(leading(api, plan, identity, cluster, stop, report))
        gated = LeaderGatedCluster(cluster, current, leadership, diagnose, jobs, states)
        # Step 6: the FaroPlan.
        reporter = Reporter(
            plan.connect(retries=1),
            plan.namespace,
            plan.name,
            policy,
            jobs,
            identity,
            proxied=not on_ray,
            steady=lambda: gated.steady,
        )
        started.callback(reporter.close)
        yield gated, reporter


def check_controller(
    api: Api, plan: NamespacedName, *, on_ray: bool, act: bool, fixed: bool
) -> None:
    """Raise ValueError if the server, the namespace, a CRD or a permission is missing.

    For the arguments, see `gated_cluster`.
    """
    preflight.check_server(api)
    preflight.check_namespace(api, plan.namespace)

    crds: list[tuple[str, str, str, str]] = []
    permissions: list[preflight.Permission] = []
    cluster_wide: tuple[preflight.Permission, ...] = ()
    if act:
        crds.append(preflight.FARO_PLANS)
        permissions += preflight.ALWAYS
    if act and on_ray:
        crds.append(preflight.RAY_SERVICES)
    if not fixed and on_ray:
        permissions += preflight.FOR_RAY
    if not fixed:
        cluster_wide = preflight.NODES if on_ray else preflight.CLUSTER_WIDE
    preflight.check_crds(api, crds)
    names = preflight.names_of(plan.name)
    preflight.check_permissions(api, plan.namespace, permissions, cluster_wide, names)


def check_scaling(cluster: Cluster) -> None:
    """Raise ValueError if Faro and an HPA would both scale a Deployment.

    If Faro sets the bounds of the HPAs, raise ValueError if `check_bounded` rejects an HPA.
    """
    if isinstance(cluster, BoundedDeployments):
        check_bounded(cluster.refs, cluster.autoscalers())
    elif isinstance(cluster, Deployments):
        preflight.check_autoscalers(by_place(cluster.refs, cluster.autoscalers()))


@contextmanager
def watched_capacity(
    api: Api, plan: NamespacedName, cluster: Cluster, jobs: tuple[Job, ...], ensure: Ensure
) -> Iterator[CapacityWatch]:
    """Yield a running CapacityWatch once the capacity holds the minimum replicas of all jobs."""
    watch = watch_capacity(api, plan, cluster, jobs)
    try:
        watch.start()
        ensure(lambda: preflight.check_minima(jobs, watch.current()))
        yield watch
    finally:
        watch.stop()


def watch_capacity(
    api: Api, plan: NamespacedName, cluster: Cluster, jobs: tuple[Job, ...]
) -> CapacityWatch:
    """A CapacityWatch, not yet started: of nodes for Deployments, else of Ray workers."""
    if not isinstance(cluster, Deployments):
        return RayCapacity(api, plan.namespace, plan.name)
    namespaces = {ref.namespace for ref in cluster.refs}
    if len(namespaces) > 1:
        problem = "jobs that share capacity share one"
        raise ValueError(f"deployments: in the namespaces {sorted(namespaces)}; {problem}")
    cores = [job.cores for job in jobs]
    shape = ShapeWatch(cluster.refs, lambda: cluster.seen)
    cluster.read()
    _, problems = shape([])
    if len(problems) == len(jobs):  # otherwise, Faro scales the others
        raise ValueError(problems[0])
    return NodeCapacity(api, namespaces.pop(), shape.selectors, cores, shape)


@contextmanager
def leading(
    api: Api,
    plan: NamespacedName,
    identity: str,
    cluster: Cluster,
    stop: threading.Event,
    report: Callable[[str], None],
) -> Iterator[Leadership]:
    """Yield the Leadership once this controller leads or `stop` is set; then release it.

    identity : unique among the candidates.
    """
    # No retries and a short time-out: a renewal that hangs must fail before the lease expires.
    own_api = plan.connect(retries=0, timeout_s=2.0)
    leadership = Leadership(own_api, plan.namespace, plan.name, identity).start()
    try:
        report(f"{identity} waits for lease {plan.namespace}/{plan.name}")
        tell = cache(report)  # reports a line once, although the loop repeats it every half second
        while not stop.is_set() and not leadership.wait(0.5):
            restore_unled(api, cluster, leadership, tell)
        if not stop.is_set():
            report(f"{identity} leads")
        yield leadership
    finally:
        leadership.stop()


def restore_unled(
    api: Api, cluster: Cluster, leadership: Leadership, report: Callable[[str], None]
) -> None:
    """Restore the autoscalers' original bounds if the lease has not changed for UNLED_S seconds."""
    if isinstance(cluster, BoundedDeployments) and leadership.unled_s > UNLED_S:
        with suppress(ApiError):  # the next call, half a second later, tries again
            for line in restore(api, cluster.autoscalers()):
                report(f"nobody has led for {UNLED_S:g} s: {line}")


def by_place(refs: Sequence[DeploymentRef], things: Sequence[Any]) -> dict[str, Any]:
    """Map the namespace/name of each Deployment to the thing that belongs to it."""
    return {str(ref): thing for ref, thing in zip(refs, things)}
