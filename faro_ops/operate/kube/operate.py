"""Set up a controller in Kubernetes.

`KubeSession` has what lasts from the start to the end: the lease, the watched capacity, and the
FaroPlan. `DeploymentsBackend` makes the cluster of the jobs that are Deployments. A change of
settings replaces the jobs and their cluster; the lease is never released for it, and what runs goes
on until the new set-up is complete.

At the start, in this order:

1. `KubeSession.check`: the server, the namespace, the CRDs, the controller's permissions.
2. `DeploymentsBackend`: the permissions to read the Deployments; then the jobs' sections.
3. `KubeSession.gated`: watch the capacity. `check_some_job`: end the start if every job has a
   problem; what is wrong with some of them never ends it (job_checks.py).
4. `KubeSession.lead`: wait until this controller is the leader. Until here, nothing in Kubernetes
   is changed. A dry run leaves this step out.
5. `KubeSession.use`, then `publish` after every tick.

Changed settings take steps 2, 3 and 5. `close` ends in reverse order: publishing, leadership (the
lease is released), watching the capacity. Replicas, bounds of HPAs and the FaroPlan stay as they
are.
"""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self

from faro_lib.control import Step
from faro_lib.protocol import Cluster
from faro_lib.workload import Job
from faro_ops.operate.clock import Clock
from faro_ops.operate.job_states import JobStates
from faro_ops.operate.kube import preflight
from faro_ops.operate.kube.capacity import Shape
from faro_ops.operate.kube.capacity_watch import CapacityWatch, NodeCapacity, RayCapacity
from faro_ops.operate.kube.client import Api, ApiError, connect
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics
from faro_ops.operate.kube.deployments import Deployments
from faro_ops.operate.kube.hpa_bounds import UNLED_S, BoundedDeployments, restore
from faro_ops.operate.kube.job_checks import JobChecks, ObjectPermissions, refs_of
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.kube.lease import Leadership, candidate_identity
from faro_ops.operate.kube.shape import ShapeWatch
from faro_ops.operate.kube.status import Condition, Reporter, capacity_condition
from faro_ops.operate.memory.overrides import Settings
from faro_ops.operate.startup import ConfigurationError
from faro_ops.protocol import LiveCluster


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


# --- the jobs' Deployments ------------------------------------------------------------------------


class DeploymentsBackend:
    """Makes the cluster of the Deployments that the jobs' table lists, for each settings of a run.

    prometheus : URL of the Prometheus server.
    token_path : file with its bearer token, or None if it needs none.
    cores : cores that the jobs may use; None: measured.
    ceilings : whether Faro sets the bounds of the Deployments' HorizontalPodAutoscalers instead of
        replica counts.
    act : whether plans are applied; if not, no permission to change anything is needed.
    states : board on which jobs whose data is missing are reported.

    Raises ConfigurationError without `prometheus`.
    """

    def __init__(
        self,
        plan: NamespacedName,
        *,
        prometheus: str | None,
        token_path: str | None,
        clock: Clock,
        cores: float | None = None,
        ceilings: bool = False,
        act: bool = True,
        states: JobStates | None = None,
    ):
        if prometheus is None:
            problem = "needs --prometheus, the address of the server for the jobs' queries"
            raise ConfigurationError(f"backend=deployments {problem}")
        self._plan = plan
        self._api = plan.connect()
        self._metrics = DeploymentMetrics(prometheus, token_path, states=states)
        self._clock = clock
        self._cores = cores
        self._ceilings = ceilings
        wanted = preflight.FOR_CEILINGS if ceilings else preflight.FOR_DEPLOYMENTS
        self._permissions = ObjectPermissions(self._api, wanted) if act else None
        self._to_read = preflight.only_list(wanted)
        if cores is None:  # quotas limit the capacity that is measured
            self._to_read += preflight.QUOTAS
        self._may_read: set[str] = set()  # namespaces in which the controller may read

    def __call__(self, settings: Settings) -> Deployments:
        """The cluster of some settings.

        Raises ValueError if the controller may not read in the Deployments' namespace, and OSError
        if the API server does not say. In a namespace that is known, this sends no request that
        must be answered.
        """
        sections = settings.sections.get("deployment", {})
        refs, problems = refs_of(settings.jobs, sections, self._plan.namespace)
        for namespace in {ref.namespace for ref in refs} - self._may_read:
            preflight.check_permissions(self._api, namespace, self._to_read, ())
            self._may_read.add(namespace)
        of_jobs = self._api, refs, self._metrics, self._clock, self._cores or 0.0
        if self._ceilings:
            owner = f"{self._plan.namespace}/{self._plan.name}"
            cluster: Deployments = BoundedDeployments(*of_jobs, owner=owner)
        else:
            cluster = Deployments(*of_jobs)
        checks = JobChecks(cluster, problems, self._permissions)
        checks.ask()
        cluster.checks = checks
        return cluster


def check_some_job(gated: "GatedJobs") -> None:
    """Raise ValueError if Faro could scale no job, with the problem of the first."""
    problems = gated.cluster.problems()
    if gated.jobs and len(problems) == len(gated.jobs):
        others = f" (and {len(problems) - 1} more jobs)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}{others}")


# --- what lasts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GatedJobs:
    """The cluster of some settings, ready to be used (`KubeSession.use`)."""

    jobs: tuple[Job, ...]
    cluster: LeaderGatedCluster
    watch: CapacityWatch | None


class KubeSession:
    """What a controller keeps in Kubernetes until it ends: lease, watched capacity, FaroPlan.

    on_ray : whether the jobs are those of a RayService.
    stop : setting it ends the wait for the lease.
    act : whether plans are applied; if not, no lease is taken and nothing is published.
    fixed : whether to use the capacity of the cluster instead of measuring it.
    states : board of job states.
    conditions : returns further conditions of the FaroPlan.
    """

    def __init__(
        self,
        plan: NamespacedName,
        policy: str,
        stop: threading.Event,
        *,
        on_ray: bool,
        act: bool = True,
        fixed: bool = False,
        report: Callable[[str], None] = lambda line: None,
        states: JobStates | None = None,
        conditions: Callable[[], Iterable[Condition]] = tuple,
    ):
        self._plan = plan
        self._policy = policy
        self._stop = stop
        self._on_ray = on_ray
        self._act = act
        self._fixed = fixed
        self._report = report
        self._states = states or JobStates()
        self._more_conditions = conditions
        self._api = plan.connect()
        self._identity = candidate_identity()
        # No retries and a short time-out: a renewal that hangs must fail before the lease expires.
        lease_api = plan.connect(retries=0, timeout_s=2.0) if act else None
        self._leadership = (
            Leadership(lease_api, plan.namespace, plan.name, self._identity) if lease_api else None
        )
        self._competes = False  # whether the leader election has begun
        self._reporter: Reporter | None = None
        self._used: GatedJobs | None = None

    def check(self) -> None:
        """Raise ValueError if the server, the namespace, a CRD or a permission is missing."""
        check_controller(
            self._api, self._plan, on_ray=self._on_ray, act=self._act, fixed=self._fixed
        )

    def gated(self, cluster: LiveCluster, jobs: tuple[Job, ...]) -> GatedJobs:
        """The cluster with its capacity measured, and scaled only while this process leads.

        What is used already stays as it is. Raises OSError if the capacity cannot be read.
        """
        watch = None if self._fixed else self._watch(cluster, jobs)
        check_ray = partial(
            preflight.check_rayservice, self._api, self._plan.namespace, self._plan.name
        )
        gated = LeaderGatedCluster(
            cluster,
            watch.current if watch else None,
            self._leadership,
            check_ray if self._on_ray and not self._fixed else lambda: None,
            jobs,
            self._states,
            checks=cluster.checks if isinstance(cluster, Deployments) else tuple,
        )
        return GatedJobs(jobs, gated, watch)

    def _watch(self, cluster: LiveCluster, jobs: tuple[Job, ...]) -> CapacityWatch:
        """A running watch of the capacity; it shares what the one in use has read, if it can."""
        before = self._used.watch if self._used else None
        if before and self._on_ray:  # it does not depend on the jobs
            return before
        watch = watch_capacity(self._api, self._plan, cluster, jobs, before)
        if isinstance(watch, NodeCapacity) and watch.shares:
            return watch
        try:
            return watch.start()
        except BaseException:
            watch.stop()
            raise

    def lead(self, cluster: Cluster) -> None:
        """Wait until this controller is the leader, or `stop` is set.

        It stays the leader until `close`, unless the lease is lost.
        """
        if self._leadership is None:
            return
        self._competes = True
        leadership = self._leadership.start()
        self._report(f"{self._identity} waits for lease {self._plan.namespace}/{self._plan.name}")
        tell = cache(self._report)  # a line once, although the loop repeats it every half second
        while not self._stop.is_set() and not leadership.wait(0.5):
            restore_unled(self._api, cluster, leadership, tell)
        if not self._stop.is_set():
            self._report(f"{self._identity} leads")
        self._reporter = Reporter(
            self._plan.connect(retries=1),
            self._plan.namespace,
            self._plan.name,
            self._policy,
            self._identity,
            proxied=not self._on_ray,
            states=self._states,
            conditions=self._conditions,
            pending=self.pending,
        )

    def leads(self) -> bool | None:
        """Whether this process is the leader; None without an election, in a dry run."""
        return None if self._leadership is None else self._leadership.is_leader()

    def use(self, new: GatedJobs) -> None:
        """Use this cluster from now on, and end what only the one before needed."""
        before, self._used = self._used, new
        if before is None or before is new:
            return
        new.cluster.follow(before.cluster)
        if before.watch and new.watch is not before.watch and not _share(before.watch, new.watch):
            before.watch.stop()

    def discard(self, unused: GatedJobs) -> None:
        """End what a set-up has started that is not used after all."""
        used = self._used.watch if self._used else None
        if unused.watch and unused.watch is not used and not _share(unused.watch, used):
            unused.watch.stop()

    def publish(self, step: Step) -> None:
        """Publish the result of a tick in the FaroPlan; a dry run publishes nothing."""
        if self._reporter and self._used:
            self._reporter(self._used.jobs, step)

    def pending(self) -> dict[str, int] | None:
        """Job -> its pods that wait for a node or an image, if any; None if that is not known."""
        used = self._used
        waiting = used.watch.pending() if used and used.watch else None
        if used is None or waiting is None:
            return None
        return {used.jobs[n].name: count for n, count in waiting.items()}

    def _conditions(self) -> list[Condition]:
        steady = self._used.cluster.steady if self._used else None
        known = [] if steady is None else [capacity_condition(steady)]
        return [*known, *self._more_conditions()]

    def close(self) -> None:
        if self._reporter:
            self._reporter.close()
        if self._leadership and self._competes:
            self._leadership.stop()
        if self._used and self._used.watch:
            self._used.watch.stop()


def _share(one: CapacityWatch, other: CapacityWatch | None) -> bool:
    """Whether two watches read the same copies."""
    return other is not None and one.copies == other.copies


def check_controller(
    api: Api, plan: NamespacedName, *, on_ray: bool, act: bool, fixed: bool
) -> None:
    """Raise ValueError if the server, the namespace, a CRD or a permission is missing.

    For the arguments, see `KubeSession`.
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


def watch_capacity(
    api: Api,
    plan: NamespacedName,
    cluster: Cluster,
    jobs: tuple[Job, ...],
    before: CapacityWatch | None = None,
) -> CapacityWatch:
    """A CapacityWatch, not yet started: of nodes for Deployments, else of Ray workers.

    before : the watch of former settings, whose copies are shared if possible.
    """
    if not isinstance(cluster, Deployments):
        return RayCapacity(api, plan.namespace, plan.name)
    checks = cluster.checks
    unusable = checks.sections if isinstance(checks, JobChecks) else {}

    def seen() -> list[dict]:
        """Each job's Deployment; {} also if the section is invalid: its pods are other pods."""
        return [{} if n in unusable else one for n, one in enumerate(cluster.seen)]

    watched = ShapeWatch(cluster.refs, seen)

    def shape(nodes: list[dict]) -> tuple[Shape, dict[int, str]]:
        found, problems = watched(nodes)
        return found, dict(unusable) | problems

    cores = [job.cores for job in jobs]
    namespace = cluster.refs[0].namespace if cluster.refs else plan.namespace
    return NodeCapacity(api, namespace, watched.selectors, cores, shape, before)


def restore_unled(
    api: Api, cluster: Cluster, leadership: Leadership, report: Callable[[str], None]
) -> None:
    """Restore the autoscalers' original bounds if the lease has not changed for UNLED_S seconds."""
    if isinstance(cluster, BoundedDeployments) and leadership.unled_s > UNLED_S:
        with suppress(ApiError):  # the next call, half a second later, tries again
            for line in restore(api, cluster.autoscalers()):
                report(f"nobody has led for {UNLED_S:g} s: {line}")
