"""Checks before a controller changes anything. A check that fails raises a one-line error."""

from collections.abc import Iterable, Mapping, Sequence

from faro_lib.policies.protocol import minimum_replicas
from faro_lib.workload import Job
from faro_lib.workload.jobs import arrays_of
from faro_ops.kube.capacity import EPSILON, Capacity
from faro_ops.kube.client import Api, ApiError, found
from faro_ops.kube.rayservice import CLUSTER, why_not_ready
from faro_ops.kube.status import GROUP, PLURAL, VERSION

Permission = tuple[str, str, tuple[str, ...]]  # API group, resource, verbs
# The permissions that the controller needs. `faro manifests` writes a Role with them; `check_permissions` checks each.
CLUSTER_WIDE: tuple[Permission, ...] = (
    ("", "nodes", ("list", "watch")),
    ("", "pods", ("list", "watch")),
)
QUOTAS: tuple[Permission, ...] = (
    ("", "resourcequotas", ("list", "watch")),
)  # needed in each Deployment's namespace
ALWAYS: tuple[Permission, ...] = (
    *QUOTAS,
    ("", "events", ("create",)),
    ("coordination.k8s.io", "leases", ("get", "create", "update")),
    (GROUP, PLURAL, ("get", "create", "patch")),
    (GROUP, f"{PLURAL}/status", ("patch",)),
)
FOR_DEPLOYMENTS: tuple[Permission, ...] = (
    ("apps", "deployments", ("list",)),
    ("apps", "deployments/scale", ("get", "patch")),
    ("autoscaling", "horizontalpodautoscalers", ("list",)),
)
FOR_CEILINGS: tuple[Permission, ...] = (  # if the controller sets only the bounds of HPAs
    ("apps", "deployments", ("list",)),
    ("autoscaling", "horizontalpodautoscalers", ("list", "get", "patch")),
)
FOR_RAY: tuple[Permission, ...] = (("ray.io", "rayservices", ("get", "list", "watch")),)
NAMED = ("get", "update", "patch")  # verbs that a Role can restrict to objects with certain names
# Custom resources: (group, version, plural, what installs the CRD).
FARO_PLANS = (GROUP, VERSION, PLURAL, "faro manifests")
RAY_SERVICES = ("ray.io", "v1", "rayservices", "KubeRay's operator")


def check_server(api: Api) -> None:
    """Raise ValueError if the server does not answer or refuses the credentials."""
    try:
        may(
            api, api.namespace, "", "pods", "list"
        )  # any answer, even False, shows that the credentials are valid
    except ApiError as error:
        refused = f"{api.host}: the credentials are refused; has the token expired?"
        raise ValueError(refused if error.status == 401 else str(error)) from None


def check_namespace(api: Api, namespace: str) -> None:
    """Raise ValueError if the namespace does not exist or is being deleted."""
    try:
        api.get(f"/api/v1/namespaces/{namespace}/resourcequotas", limit="1")
        if (
            api.get(f"/api/v1/namespaces/{namespace}").get("status", {}).get("phase")
            == "Terminating"
        ):
            raise ValueError(f"namespace={namespace!r} is being deleted")
    except ApiError as error:
        if error.status == 404:
            raise ValueError(
                f"namespace={namespace!r} does not exist; kubectl create namespace {namespace}"
            ) from None
        if (
            error.status != 403
        ):  # a ServiceAccount may lack the permission to read its own namespace
            raise


def check_crds(api: Api, resources: Iterable[tuple[str, str, str, str]]) -> None:
    """Raise ValueError if the server lacks one of `resources`, which are tuples such as FARO_PLANS."""
    for group, version, plural, origin in resources:
        served = found(api, f"/apis/{group}/{version}") or {"resources": []}
        if plural not in {one["name"] for one in served["resources"]}:
            raise ValueError(
                f"the API server does not know {plural}.{group}/{version}; {origin} installs it"
            )


def check_rayservice(api: Api, namespace: str, name: str) -> None:
    """Raise ValueError if the RayService does not exist or is not ready; the message names a pod that cannot start."""
    place = f"RayService '{namespace}/{name}'"
    try:
        service = api.get(f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}")
        pods = api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=CLUSTER)["items"]
    except ApiError as error:
        missing = f"{place} does not exist; `faro manifests` writes it"
        raise ValueError(missing if error.status == 404 else str(error)) from None
    if reason := why_not_ready(service, pods):
        raise ValueError(f"{place} is not ready: {reason}")


def check_minima(jobs: tuple[Job, ...], capacity: Capacity) -> None:
    """Raise ValueError if the capacity cannot hold the minimum replicas of all jobs."""
    need = float(minimum_replicas(jobs) @ arrays_of(jobs).cores)
    if need > capacity.cores + EPSILON:
        reasons = "".join(f"; {node}: {reason}" for node, reason in capacity.unusable.items())
        have = f"{capacity.bound}: {capacity.cores:g} cores"
        raise ValueError(
            f"{have} cannot hold the minimum of {len(jobs)} jobs, {need:g} cores{reasons}"
        )


def check_deployments(states: Mapping[str, object]) -> None:
    """Raise ValueError if a Deployment does not exist, that is, if `states` maps its namespace/name to None."""
    if missing := [name for name, state in states.items() if state is None]:
        raise ValueError(
            f"deployment {missing[0]!r} does not exist ({len(missing)} of {len(states)} are missing)"
        )


def names_of(plan: str, deployments: Iterable[str] = ()) -> dict[str, list[str]]:
    """Map resources to the names of the objects that the controller's Role is limited to (see `rules`).

    deployments : names of the Deployments, or of their HPAs if the controller sets only the bounds of HPAs.
    """
    resources = ("leases", PLURAL, f"{PLURAL}/status", "rayservices")
    scaled = dict.fromkeys(("deployments/scale", "horizontalpodautoscalers"), sorted(deployments))
    return {resource: [plan] for resource in resources} | scaled


def rules(
    permissions: Iterable[Permission], names: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, list, list]]:
    """Return the rules of a Role that grants `permissions`, each as (API group, resource, verbs, object names).

    If `names` lists objects of a resource, verbs in NAMED apply only to them. A rule without names is for all objects.

    >>> rules([("apps", "deployments/scale", ("list", "patch"))], {"deployments/scale": ["a"]})
    [('apps', 'deployments/scale', ['list'], []), ('apps', 'deployments/scale', ['patch'], ['a'])]
    """
    found: list[tuple[str, str, list, list]] = []
    for group, resource, verbs in permissions:
        named = [verb for verb in verbs if verb in NAMED and resource in names]
        rest = [verb for verb in verbs if verb not in named]
        found += [(group, resource, rest, [])] if rest else []
        found += [(group, resource, named, list(names[resource]))] if named else []
    return found


def check_autoscalers(autoscalers: Mapping[str, Mapping | None]) -> None:
    """Raise ValueError if a Deployment has an HPA. `autoscalers` maps its namespace/name to the HPA or None."""
    if scaled := [
        (deployment, one["metadata"]["name"]) for deployment, one in autoscalers.items() if one
    ]:
        deployment, name = scaled[0]
        more = f" ({len(scaled)} of {len(autoscalers)} have one)" if len(scaled) > 1 else ""
        problem = f"is also scaled by HorizontalPodAutoscaler {name!r}; delete it{more}"
        raise ValueError(f"deployment {deployment!r} {problem}")


def check_permissions(
    api: Api,
    namespace: str,
    permissions: Sequence[Permission],
    cluster_wide: Sequence[Permission] = CLUSTER_WIDE,
    names: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Raise ValueError if the client lacks one of `permissions` in `namespace`, or a permission in `cluster_wide`."""
    for scope, wanted in ((namespace, permissions), (None, cluster_wide)):
        for group, resource, verbs, objects in rules(wanted, names or {}):
            for verb, name in ((verb, name) for verb in verbs for name in objects or [""]):
                if not may(api, scope, group, resource, verb, name):
                    what = f"{resource}.{group}" if group else resource
                    where = f"in namespace {scope!r}" if scope else "in the whole cluster"
                    what += f" {name!r}" if name else ""
                    raise ValueError(f"may not {verb} {what} {where}; `faro manifests` has a Role")


def may(
    api: Api, namespace: str | None, group: str, resource: str, verb: str, name: str = ""
) -> bool:
    """Whether this client has a permission. `namespace=None` means all namespaces. `name=""` means all objects."""
    resource, _, subresource = resource.partition("/")
    attributes = {"group": group, "resource": resource, "subresource": subresource, "verb": verb}
    attributes |= {"name": name, "namespace": namespace or ""}
    head = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    review = {**head, "spec": {"resourceAttributes": attributes}}
    answer = api.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
