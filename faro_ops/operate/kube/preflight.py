"""Checks of what concerns all jobs, before a controller changes anything.

A check that fails raises a one-line error. They stand in the order in which operate.py runs them:
server, namespace, CRDs, permissions. job_checks.py has the checks of single jobs. A RayService is
checked before a run starts, and again whenever Ray does not answer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

from faro_ops.operate.kube.client import Api, ApiError, found
from faro_ops.operate.kube.rayservice import CLUSTER, why_not_ready
from faro_ops.operate.kube.status import GROUP, PLURAL, VERSION
from faro_ops.operate.startup import ConfigurationError

Permission = tuple[str, str, tuple[str, ...]]  # API group, resource, verbs
# The permissions that the controller needs. `faro manifests` writes a Role with them, and
# `check_permissions` checks each.
NODES: tuple[Permission, ...] = (("", "nodes", ("list", "watch")),)
PODS: tuple[Permission, ...] = (("", "pods", ("list", "watch")),)
# For Deployments: pods of any namespace may use the cores of a node. Ray's capacity is that of its
# own workers, so with Ray the controller reads only the nodes, and pods of its own namespace.
CLUSTER_WIDE = NODES + PODS
# Needed in each Deployment's namespace.
QUOTAS: tuple[Permission, ...] = (("", "resourcequotas", ("list", "watch")),)
ALWAYS: tuple[Permission, ...] = (
    *QUOTAS,
    ("", "events", ("create",)),
    ("coordination.k8s.io", "leases", ("get", "create", "update")),
    (GROUP, PLURAL, ("get", "create", "patch")),
    (GROUP, f"{PLURAL}/status", ("patch",)),
    ("", "configmaps", ("get", "create", "update")),  # only plan_state.py's
)
FOR_DEPLOYMENTS: tuple[Permission, ...] = (
    ("apps", "deployments", ("list",)),
    ("apps", "deployments/scale", ("get", "patch")),
    ("autoscaling", "horizontalpodautoscalers", ("list",)),
)
# If the controller sets only the bounds of HPAs.
FOR_CEILINGS: tuple[Permission, ...] = (
    ("apps", "deployments", ("list",)),
    ("autoscaling", "horizontalpodautoscalers", ("list", "get", "patch")),
)
FOR_RAY: tuple[Permission, ...] = (*PODS, ("ray.io", "rayservices", ("get", "list", "watch")))
# `faro restore` in a CronJob: the controller's lease, and, without names, each HPA of a namespace.
# RBAC knows no annotations, and names of the jobs' table would leave out jobs that have left it.
LEASE_READER: tuple[Permission, ...] = (("coordination.k8s.io", "leases", ("get",)),)
FOR_RESTORE: tuple[Permission, ...] = (
    ("autoscaling", "horizontalpodautoscalers", ("list", "get", "patch")),
)
NAMED = ("get", "update", "patch")  # verbs that a Role can restrict to objects with certain names
CustomResource = tuple[str, str, str, str]  # group, version, plural, what installs the CRD
FARO_PLANS: CustomResource = (GROUP, VERSION, PLURAL, "faro manifests")
RAY_SERVICES: CustomResource = ("ray.io", "v1", "rayservices", "KubeRay's operator")


def check_server(api: Api) -> None:
    """Raise ValueError if the server does not answer or refuses the credentials."""
    try:
        # Any answer, even False, shows that the credentials are valid.
        may(api, api.namespace, "", "pods", "list")
    except ApiError as error:
        refused = f"{api.host}: the credentials are refused; has the token expired?"
        raise ValueError(refused if error.status == 401 else str(error)) from None


def check_namespace(api: Api, namespace: str) -> None:
    """Raise ConfigurationError if the namespace does not exist or is being deleted."""
    path = f"/api/v1/namespaces/{namespace}"
    try:
        api.get(f"{path}/resourcequotas", limit="1")
        status = api.get(path).get("status", {})
    except ApiError as error:
        if error.status == 404:
            hint = f"kubectl create namespace {namespace}"
            problem = f"namespace={namespace!r} does not exist; {hint}"
            raise ConfigurationError(problem) from None
        if error.status == 403:  # a ServiceAccount may lack the permission to read its namespace
            return
        raise
    if status.get("phase") == "Terminating":
        raise ConfigurationError(f"namespace={namespace!r} is being deleted")


def check_crds(api: Api, resources: Iterable[CustomResource]) -> None:
    """Raise ConfigurationError if the server lacks one of `resources`, such as FARO_PLANS."""
    for group, version, plural, origin in resources:
        served = found(api, f"/apis/{group}/{version}") or {"resources": []}
        if plural not in {one["name"] for one in served["resources"]}:
            missing = f"{plural}.{group}/{version}"
            problem = f"the API server does not know {missing}; {origin} installs it"
            raise ConfigurationError(problem)


def check_permissions(
    api: Api,
    namespace: str,
    permissions: Sequence[Permission],
    cluster_wide: Sequence[Permission] = CLUSTER_WIDE,
    names: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Raise ConfigurationError if the client lacks a permission in `namespace` or the cluster.

    names : names of the objects to which permissions are limited; see `rules`.
    """
    for scope, wanted in ((namespace, permissions), (None, cluster_wide)):
        for problem in missing_permissions(api, scope, rules(wanted, names or {})):
            raise ConfigurationError(problem)


def missing_permissions(
    api: Api, namespace: str | None, wanted: Iterable[tuple[str, str, Sequence, Sequence]]
) -> Iterator[str]:
    """A line for each permission that the client lacks; each is asked for when its turn comes.

    namespace : None means all namespaces.
    wanted : `rules` of permissions.
    """
    where = f"in namespace {namespace!r}" if namespace else "in the whole cluster"
    for group, resource, verbs, objects in wanted:
        what = f"{resource}.{group}" if group else resource
        for verb, name in product(verbs, objects or [""]):
            if not may(api, namespace, group, resource, verb, name):
                which = f" {name!r}" if name else ""
                yield f"may not {verb} {what}{which} {where}; `faro manifests` has a Role"


def may(
    api: Api, namespace: str | None, group: str, resource: str, verb: str, name: str = ""
) -> bool:
    """Whether this client has a permission.

    `namespace=None` means all namespaces. `name=""` means all objects.
    """
    resource, _, subresource = resource.partition("/")
    attributes = {
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
        "name": name,
        "namespace": namespace or "",
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = api.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


def rules(
    permissions: Iterable[Permission], names: Mapping[str, Sequence[str]]
) -> list[tuple[str, str, list[str], Sequence[str]]]:
    """The rules of a Role that grants `permissions`: (API group, resource, verbs, object names).

    If `names` lists objects of a resource, verbs in NAMED apply only to them. A rule without names
    is for all objects.

    >>> rules([("apps", "deployments/scale", ("list", "patch"))], {"deployments/scale": ["a"]})
    [('apps', 'deployments/scale', ['list'], []), ('apps', 'deployments/scale', ['patch'], ['a'])]
    """
    granted: list[tuple[str, str, list[str], Sequence[str]]] = []
    for group, resource, verbs in permissions:
        named = [verb for verb in verbs if verb in NAMED and resource in names]
        rest = [verb for verb in verbs if verb not in named]
        if rest:
            granted.append((group, resource, rest, []))
        if named:
            granted.append((group, resource, named, names[resource]))
    return granted


def names_of(plan: str, deployments: Sequence[str] = ()) -> dict[str, Sequence[str]]:
    """Resource -> names of the objects to which the controller's Role is limited (see `rules`).

    deployments : names of the Deployments, or of their HPAs if the controller sets only the bounds
        of HPAs.
    """
    resources = ("leases", PLURAL, f"{PLURAL}/status", "rayservices")
    scaled = dict.fromkeys(("deployments/scale", "horizontalpodautoscalers"), deployments)
    state = {"configmaps": [state_name(plan)]}
    return {resource: [plan] for resource in resources} | state | scaled


def state_name(plan: str) -> str:
    """The name of the ConfigMap with the state of a FaroPlan's controller (plan_state.py)."""
    return f"{plan}-state"


def only_list(permissions: Iterable[Permission]) -> tuple[Permission, ...]:
    """The permissions to list resources, which a dry run needs."""
    return tuple(
        (group, resource, ("list",)) for group, resource, verbs in permissions if "list" in verbs
    )


def check_rayservice(api: Api, namespace: str, name: str) -> None:
    """Raise ValueError if the RayService does not exist or is not ready.

    The message names a pod that cannot start.
    """
    place = f"RayService '{namespace}/{name}'"
    try:
        service = api.get(f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}")
        pods = api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=CLUSTER)["items"]
    except ApiError as error:
        missing = f"{place} does not exist; `faro manifests` writes it"
        raise ValueError(missing if error.status == 404 else str(error)) from None
    reason = why_not_ready(service, pods)
    if reason:
        raise ValueError(f"{place} is not ready: {reason}")
