"""The kinds of cluster that `faro run` can control."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from faro_ops.cli.shared import SayHandler, say

if TYPE_CHECKING:
    from faro_lib.policies import Policy
    from faro_ops.controller.clock import Clock
    from faro_ops.controller.overrides import Override, Settings
    from faro_ops.controller.startup import Ensure
    from faro_ops.kube.operate import NamespacedName
    from faro_ops.rayserve.cluster import Lease, RayServeCluster
    from faro_ops.rayserve.spec import ServeSpec

BACKENDS = ("local", "rayserve", "deployments")
ACTIONS = ("replicas", "ceilings")


def sets_ceilings(act: str, backend: str) -> bool:
    """Whether Faro sets HPA bounds instead of replicas. ValueError if `act` is unknown or impossible with `backend`."""
    if act not in ACTIONS:
        raise ValueError(f"act={act!r} is unknown; accepted: {', '.join(ACTIONS)}")
    if act == "ceilings" and backend != "deployments":
        raise ValueError(
            "act=ceilings needs --backend deployments, whose HorizontalPodAutoscalers choose the replicas"
        )
    return act == "ceilings"


def faro_plan(
    backend: str, plan: str | None, kubeconfig: str | None, context: str | None
) -> NamespacedName | None:
    """Parse `plan`, the NAMESPACE/NAME of a FaroPlan, and send log records to `say`. Without a plan, return None."""
    if plan is None:
        if backend == "deployments":
            raise ValueError("backend=deployments needs --plan NAMESPACE/NAME")
        return None
    from faro_ops.kube.operate import NamespacedName

    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[SayHandler()])
    logging.getLogger("urllib3").setLevel(
        logging.ERROR
    )  # no warning per retry, because Faro reports the outcome
    return NamespacedName.of(plan, kubeconfig, context)


def overrides_of(
    home: NamespacedName | None, journal: str | None
) -> Callable[[], tuple[Override, ...]]:
    """A function that reads operators' overrides from the file next to `journal` and from the FaroPlan `home`."""
    from faro_ops.controller.overrides import path_of, read_overrides

    of_journal = partial(read_overrides, path_of(journal)) if journal else tuple
    if home:
        from faro_ops.controller.background import latest
        from faro_ops.kube.plan_overrides import PlanOverrides
        from faro_ops.kube.preflight import check_server

        check_server(home.connect())
        of_plan = PlanOverrides(
            home.connect(retries=0, timeout_s=2.0), home.namespace, home.name
        ).read
        return latest(lambda: (*of_journal(), *of_plan()))
    return of_journal


@contextmanager
def ray_serve(
    home: NamespacedName | None,
    backend: str,
    settings: Settings,
    address: str | None,
    serve_address: str | None,
    clock: Clock,
    capacity: int | None,
    policy: Policy,
    ensure: Ensure,
    lease: Lease | None,
    start_timeout_s: float,
) -> Iterator[Callable[[Settings], RayServeCluster]]:
    """Yield a function that makes a `RayServeCluster` from settings.

    Backend `local` starts Ray on this machine with the jobs of `settings`, and stops it when the context ends.
    """
    from faro_ops.memory import must_fit, ray_gb
    from faro_ops.rayserve.backend import serving
    from faro_ops.rayserve.cluster import RayServeCluster
    from faro_ops.rayserve.spec import serve_specs

    def specs_of(settings: Settings) -> tuple[ServeSpec, ...]:
        return serve_specs(settings.jobs, settings.sections.get("serve", {}))

    table, specs = settings.jobs, specs_of(settings)
    if backend == "local":
        if capacity is None:
            raise ValueError(
                "backend=local needs --capacity, the cores of the cluster that it starts"
            )
        must_fit(f"{capacity} replicas of Ray Serve need", ray_gb(capacity), "take fewer replicas")
    initial = policy.initial(table, capacity) if capacity else [1] * len(table)
    options: dict[str, Any] = {
        "address": address,
        "serve_address": serve_address,
        "start_timeout_s": start_timeout_s,
    }
    with serving(backend, table, specs, initial, capacity or 0, report=say, **options) as endpoint:
        cluster: RayServeCluster | None = None

        def cluster_of(new: Settings) -> RayServeCluster:
            nonlocal cluster, lease
            if backend == "local" and specs_of(new) != specs:
                raise ValueError(
                    "backend=local: a job was added or removed, or its section serve changed; start again"
                )
            first = cluster is None
            cluster = RayServeCluster(
                new.jobs, specs_of(new), endpoint.ray, endpoint.http, clock, capacity, lease
            )
            if first:  # only at the start: later, the control loop handles outages
                ensure(cluster.connect)
                say(f"serving at {endpoint.http.address}, Ray at {endpoint.ray.address}")
            lease = lease and replace(lease, force=False)
            return cluster

        if home and backend == "rayserve" and capacity is None:
            from faro_ops.kube.preflight import check_rayservice

            ensure(lambda: check_rayservice(home.connect(), home.namespace, home.name))
        try:
            yield cluster_of
        finally:
            if backend != "local" and cluster is not None:
                cluster.release_lease()
