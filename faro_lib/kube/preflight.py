"""Before anything is touched: what would go wrong, each in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from faro_lib.kube.capacity import Capacity
from faro_lib.kube.client import Api, ApiError
from faro_lib.kube.status import GROUP, PLURAL, VERSION
from faro_lib.workload import Job

# What the controller does, as (API group, resource, verbs, whether in its own namespace): the Role is written from it, and
# `check_permissions` asks the server for each.
CLUSTER_WIDE = (("", "nodes", ("list", "watch")), ("", "pods", ("list", "watch")))
ALWAYS = (
    ("", "resourcequotas", ("list", "watch")),
    ("", "events", ("create",)),
    ("coordination.k8s.io", "leases", ("get", "create", "update")),
    (GROUP, PLURAL, ("get", "create", "patch")),
    (GROUP, f"{PLURAL}/status", ("patch",)),
)
FOR_DEPLOYMENTS = (
    ("apps", "deployments", ("list",)),
    ("apps", "deployments/scale", ("get", "patch")),
)
FOR_RAY = (("ray.io", "rayservices", ("get",)),)


def check_server(api: Api) -> None:
    """Raises ValueError where the server does not answer, or does not know us."""
    try:
        may(api, api.namespace, "", "pods", "list")  # everyone who is known may ask this
    except ApiError as refused:
        if refused.status == 401:
            raise ValueError(f"{api.host}: the credentials are refused; has the token expired?") from None
        raise ValueError(str(refused)) from None


def check_namespace(api: Api, namespace: str) -> None:
    try:
        api.get(f"/api/v1/namespaces/{namespace}/resourcequotas", limit="1")
        if api.get(f"/api/v1/namespaces/{namespace}").get("status", {}).get("phase") == "Terminating":
            raise ValueError(f"namespace={namespace!r} is being deleted")
    except ApiError as refused:
        if refused.status == 404:
            raise ValueError(f"namespace={namespace!r} is not there; kubectl create namespace {namespace}") from None
        if refused.status != 403:  # a ServiceAccount that may not look at its own namespace still lives in it
            raise


def check_crds(api: Api, groups: Iterable[tuple[str, str, str, str]]) -> None:
    """Each (group, version, plural, who brings it) must be served."""
    for group, version, plural, origin in groups:
        try:
            served = {one["name"] for one in api.get(f"/apis/{group}/{version}")["resources"]}
        except ApiError as refused:
            if refused.status != 404:
                raise
            served = set()
        if plural not in served:
            raise ValueError(f"the API server does not know {plural}.{group}/{version}; {origin} brings it")


FARO_PLANS = (GROUP, VERSION, PLURAL, "faro manifests")
RAY_SERVICES = ("ray.io", "v1", "rayservices", "KubeRay's operator")


def check_minima(jobs: tuple[Job, ...], now: Capacity) -> None:
    fewest = np.array([max(1, job.min_replicas) for job in jobs])
    need = float(np.dot(fewest, [job.cores for job in jobs]))
    if need > now.cores + 1e-9:
        why = "".join(f"; {node}: {reason}" for node, reason in now.unusable.items())
        raise ValueError(
            f"{now.bound}: {now.cores:g} cores cannot hold the minimum of {len(jobs)} jobs, {need:g} cores{why}"
        )


def check_deployments(found: Mapping[str, object]) -> None:
    missing = [name for name, deployment in found.items() if deployment is None]
    if missing:
        raise ValueError(f"deployment {missing[0]!r} is not there ({len(missing)} of {len(found)} are missing)")


def check_permissions(
    api: Api, namespace: str, rights: Iterable[tuple[str, str, tuple[str, ...]]], everywhere=CLUSTER_WIDE
) -> None:
    """Raises ValueError naming the first verb that we need and may not."""
    for scope, wanted in ((namespace, rights), (None, everywhere)):
        for group, resource, verbs in wanted:
            for verb in verbs:
                if not may(api, scope, group, resource, verb):
                    where = f"in namespace {scope!r}" if scope else "in the whole cluster"
                    raise ValueError(
                        f"may not {verb} {resource}{'.' + group if group else ''} {where}; `faro manifests` has a Role"
                    )


def may(api: Api, namespace: str | None, group: str, resource: str, verb: str) -> bool:
    resource, _, sub = resource.partition("/")
    asked = {"group": group, "resource": resource, "subresource": sub, "verb": verb}
    if namespace:
        asked["namespace"] = namespace
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    answer = api.send(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {**review, "spec": {"resourceAttributes": asked}},
    )
    return bool(answer["status"]["allowed"])
