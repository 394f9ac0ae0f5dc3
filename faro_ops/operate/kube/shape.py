"""What the replicas of Deployments require of a node, read from the Deployments' pod templates.

A job whose template Faro cannot use is named with its problem, and does not count in what the
others require.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from faro_ops.operate.kube.capacity import EPSILON, Shape, requests_of
from faro_ops.operate.kube.client import amount
from faro_ops.operate.kube.deployments import DeploymentRef

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def shape_of(
    refs: Sequence[DeploymentRef],
    deployments: Sequence[dict],
    nodes: Sequence[dict] = (),
    before: Mapping[str, str] | None = None,
) -> tuple[Shape, dict[int, str]]:
    """What the replicas of the jobs require of a node, and the problems of jobs left out of it.

    deployments : each job's Deployment; {} if it has never existed, which is no problem here.
    nodes : all nodes of the cluster; a job whose pods would fit on none of them is left out.
    before : the nodeSelector that the jobs shared before; None if unknown.

    The problems are by index of the job. A job is left out if its template requests more than its
    `cores`, requires a nodeAffinity, or has another nodeSelector than most jobs (in a tie, than
    before). `cores` may exceed the request, because admission webhooks may add containers. Raises
    ValueError if the jobs' table names several resources.
    """
    resource = refs[0].resource
    if any(ref.resource != resource for ref in refs):
        resources = ", ".join(sorted({ref.resource for ref in refs}))
        problem = f"differs ({resources}); jobs that share capacity share one resource"
        raise ValueError(f"deployments: deployment.resource {problem}")

    specs = {
        job: deployment["spec"]["template"]["spec"]
        for job, deployment in enumerate(deployments)
        if deployment
    }
    selector = shared_selector([spec.get("nodeSelector", {}) for spec in specs.values()], before)
    needs: dict[int, dict[str, float]] = {}  # job -> what one of its replicas needs of a node
    problems: dict[int, str] = {}
    for job, spec in specs.items():
        ref = refs[job]
        try:
            needs[job] = requests_of({"spec": spec}) | {resource: ref.job.cores}
            found = problem_of(ref, spec, selector)
            too_large = fits_nowhere(needs[job], nodes)
            if not found and too_large:
                found = f"deployment '{ref}': {too_large}"
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            found = f"deployment '{ref}': its pod template cannot be read: {error!r}"
        if found:
            problems[job] = found

    fine = [job for job in specs if job not in problems]
    if not fine:
        return Shape(selector=selector), problems
    per_core: dict[str, float] = {}
    for job in fine:
        for name, value in needs[job].items():
            per_core[name] = max(per_core.get(name, 0.0), value / refs[job].job.cores)

    # The greatest common divisor of the jobs' cores, which are multiples of 0.1.
    quantum = float(np.gcd.reduce([round(refs[job].job.cores * 10) for job in fine])) / 10

    tolerated = [specs[job].get("tolerations", []) for job in fine]
    tolerations = [one for one in tolerated[0] if all(one in others for others in tolerated)]
    return Shape(per_core, quantum, tuple(tolerations), selector), problems


def problem_of(ref: DeploymentRef, spec: dict, selector: Mapping[str, str]) -> str | None:
    """Why Faro cannot scale a job with the pod template `spec`; None if it can.

    selector : the nodeSelector of the other jobs.
    """
    job = ref.job
    asked = requests_of({"spec": spec}).get(ref.resource, 0.0)
    if asked > job.cores + EPSILON:
        problem = f"is less than the {asked:g} {ref.resource} that its pods request"
        return f"job {job.name!r}: cores={job.cores:g} {problem}"
    if REQUIRED in (spec.get("affinity") or {}).get("nodeAffinity", {}):
        problem = "a required nodeAffinity is not read; choose the nodes by nodeSelector"
        return f"deployment '{ref}': {problem}"
    own = spec.get("nodeSelector", {})
    if own != selector:
        problem = f"nodeSelector={own} differs from {dict(selector)} of the other jobs"
        return f"deployment '{ref}': {problem}; jobs share capacity only on the same nodes"
    return None


def fits_nowhere(needs: Mapping[str, float], nodes: Sequence[dict]) -> str | None:
    """Why a replica fits on none of these nodes, even if they are empty; None if it fits."""
    sizes = [node.get("status", {}).get("allocatable") for node in nodes]
    known = [size for size in sizes if size]
    limited = {name: need for name, need in needs.items() if not name.startswith("limits.")}

    def fits(size: Mapping[str, str]) -> bool:
        return all(amount(size.get(name, "0")) >= need for name, need in limited.items())

    if not known or any(fits(size) for size in known):
        return None
    asked = ", ".join(f"{need:g} {name}" for name, need in limited.items() if name != "pods")
    return f"no node is large enough for its pods, which request {asked}"


def shared_selector(
    selectors: Sequence[Mapping[str, str]], before: Mapping[str, str] | None
) -> dict[str, str]:
    """The nodeSelector of most jobs; in a tie, `before`, or else that of the earlier job.

    >>> shared_selector([{"pool": "new"}, {"pool": "old"}], {"pool": "old"})
    {'pool': 'old'}
    """
    counted = Counter(tuple(sorted(one.items())) for one in selectors)
    most = max(counted.values(), default=0)
    tied = [one for one, count in counted.items() if count == most]
    former = tuple(sorted((before or {}).items()))
    if before is not None and former in tied:
        return dict(former)
    return dict(tied[0]) if tied else dict(former)


def selector_of(deployment: Mapping) -> dict[str, str]:
    """Labels that select the pods of a Deployment, {} if it has never existed.

    A selector without matchLabels would match every pod, so the template's labels replace it.
    """
    if not deployment:
        return {}
    spec = deployment["spec"]
    return spec["selector"].get("matchLabels") or spec["template"]["metadata"].get("labels", {})


class ShapeWatch:
    """`shape_of` the Deployments as last read; it remembers the nodeSelector that the jobs share.

    deployments : returns each job's Deployment, {} if it has never existed.
    """

    def __init__(self, refs: Sequence[DeploymentRef], deployments: Callable[[], Sequence[dict]]):
        self._refs = refs
        self._deployments = deployments
        self._selector: Mapping[str, str] | None = None

    def __call__(self, nodes: Sequence[dict]) -> tuple[Shape, dict[int, str]]:
        shape, problems = shape_of(self._refs, self._deployments(), nodes, self._selector)
        self._selector = shape.selector
        return shape, problems

    def selectors(self) -> list[dict[str, str]]:
        """Labels that select each job's pods."""
        return [selector_of(deployment) for deployment in self._deployments()]
