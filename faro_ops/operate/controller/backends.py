"""The kinds of cluster that `faro run` can control."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from faro_ops.log import SayHandler, say
from faro_ops.operate.memory.run_state import JournalState, Store
from faro_ops.operate.startup import once

if TYPE_CHECKING:
    from faro_lib.policies import Policy
    from faro_ops.operate.clock import Clock
    from faro_ops.operate.job_states import JobStates
    from faro_ops.operate.kube.operate import NamespacedName
    from faro_ops.operate.memory.overrides import Orders, Settings
    from faro_ops.operate.rayserve.backend import Endpoint
    from faro_ops.operate.rayserve.cluster import Lease, RayServeCluster
    from faro_ops.operate.rayserve.spec import ServeSpec
    from faro_ops.operate.startup import Ensure
    from faro_ops.run_options import RunOptions


def faro_plan(options: RunOptions) -> NamespacedName | None:
    """The FaroPlan of the run; None without one. Log records are sent to `say`."""
    level = logging.WARNING if options.plan is None else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", handlers=[SayHandler()])
    if options.plan is None:
        return None
    from faro_ops.operate.kube.operate import NamespacedName

    # No warning per retry, because Faro reports the outcome.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    return NamespacedName.of(options.plan, options.kubeconfig, options.context)


def state_store(home: NamespacedName | None, journal: str | None) -> Store | None:
    """Where the state that survives the controller is kept; None without FaroPlan and journal."""
    if home is not None:
        from faro_ops.operate.kube.plan_state import PlanState

        return PlanState(home.connect(retries=1), home.namespace, home.name)
    return JournalState(journal) if journal else None


def overrides_of(
    home: NamespacedName | None, journal: str | None, ensure: Ensure = once, restores: bool = False
) -> Callable[[], Orders]:
    """A function that reads operators' orders; those of a place that cannot be read stay as known.

    They are in the `journal` and in the FaroPlan `home`.

    ensure : runs the checks that the API server answers, once or until they pass.
    restores : whether the orders of a deleted FaroPlan are written into the next one.
    """
    from faro_ops.operate.memory.override_store import JournalOverrides
    from faro_ops.operate.memory.overrides import LastKnown, Orders

    of_journal = LastKnown(JournalOverrides(journal).read) if journal else Orders
    if home is None:
        return of_journal
    from faro_ops.operate.background import latest
    from faro_ops.operate.kube.plan_overrides import PlanOverrides
    from faro_ops.operate.kube.preflight import check_server

    ensure(lambda: check_server(home.connect()))
    api = home.connect(retries=0, timeout_s=2.0)
    of_plan = LastKnown(PlanOverrides(api, home.namespace, home.name, restores).read)
    return latest(lambda: of_journal() + of_plan())


@contextmanager
def ray_serve(
    options: RunOptions,
    home: NamespacedName | None,
    settings: Settings,
    policy: Policy,
    *,
    clock: Clock,
    ensure: Ensure = once,
    lease: Lease | None = None,
    states: JobStates | None = None,
) -> Iterator[Callable[[Settings], RayServeCluster]]:
    """Yield a function that makes a `RayServeCluster` from settings.

    Backend `local` starts Ray on this machine with the jobs of `settings`, and stops it when the
    context ends. Jobs with trouble are reported to the board `states`.
    """
    from faro_ops.free_memory import must_fit, ray_gb
    from faro_ops.operate.rayserve.backend import serving

    jobs, capacity, starts = settings.jobs, options.capacity, options.backend == "local"
    specs = _specs_of(settings, strict=starts)[0]
    if starts and capacity:
        must_fit(f"{capacity} replicas of Ray Serve need", ray_gb(capacity), "take fewer replicas")
    initial = policy.initial(jobs, capacity) if capacity else [1] * len(jobs)
    ray = serving(
        options.backend,
        jobs,
        specs,
        initial,
        capacity or 0,
        address=options.address,
        serve_address=options.serve_address,
        start_timeout_s=options.start_timeout_s,
        report=say,
    )
    with ray as endpoint:
        if home and options.backend == "rayserve" and capacity is None:
            from faro_ops.operate.kube.preflight import check_rayservice

            ensure(lambda: check_rayservice(home.connect(), home.namespace, home.name))
        started = specs if starts else None
        # With a FaroPlan, the capacity is that of the RayService's workers.
        cores = math.nan if home and capacity is None else capacity
        clusters = _RayServeClusters(endpoint, clock, cores, lease, ensure, started, states)
        try:
            yield clusters.of
        finally:
            if not starts:
                clusters.release_lease()


@dataclass(slots=True)
class _RayServeClusters:
    """Makes a `RayServeCluster` for each settings of a run; `lease` passes from one to the next.

    started : the specs of the jobs that Ray was started with on this machine, which cannot change;
        None if Ray runs elsewhere.
    """

    endpoint: Endpoint
    clock: Clock
    capacity: float | None
    lease: Lease | None
    ensure: Ensure
    started: tuple[ServeSpec, ...] | None
    states: JobStates | None
    newest: RayServeCluster | None = None

    def of(self, settings: Settings) -> RayServeCluster:
        """The cluster for the jobs of `settings`. The first one is connected here.

        Later, the control loop handles outages of Ray.
        """
        from faro_ops.operate.rayserve.cluster import RayServeCluster

        specs, problems = _specs_of(settings, strict=self.started is not None)
        if self.started is not None and specs != self.started:
            raise ValueError(
                "backend=local: a job was added or removed, or its section serve changed; "
                "start again"
            )
        ray, http = self.endpoint.ray, self.endpoint.http
        first = self.newest is None
        cluster = RayServeCluster(
            settings.jobs,
            specs,
            ray,
            http,
            self.clock,
            self.capacity,
            self.lease,
            self.states,
            problems,
        )
        self.newest = cluster
        if first:
            self.ensure(cluster.connect)
            say(f"serving at {http.address}, Ray at {ray.address}")
        if self.lease:
            self.lease = replace(self.lease, force=False)  # only the first cluster takes over
        return cluster

    def release_lease(self) -> None:
        if self.newest:
            self.newest.release_lease()


def _specs_of(settings: Settings, strict: bool) -> tuple[tuple[ServeSpec, ...], dict[int, str]]:
    """The jobs' specs, and what is wrong with sections `serve`, by index of the job.

    ValueError if a section is invalid and `strict`, or if all are.
    """
    from faro_ops.operate.rayserve.spec import serve_specs, usable_specs

    sections = settings.sections.get("serve", {})
    if strict:
        return serve_specs(settings.jobs, sections), {}
    specs, problems = usable_specs(settings.jobs, sections)
    if len(problems) == len(specs):
        raise ValueError(next(iter(problems.values()), "the jobs' table has no job"))
    return specs, problems
