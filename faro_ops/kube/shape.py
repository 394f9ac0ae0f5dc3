"""What the replicas of Deployments require of a node, read from the Deployments' pod templates."""

from collections.abc import Sequence

import numpy as np

from faro_ops.kube.capacity import EPSILON, Shape, requests_of
from faro_ops.kube.deployments import DeploymentRef

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def shape_of(refs: Sequence[DeploymentRef], deployments: list[dict]) -> Shape:
    """What the replicas of these Deployments require of a node.

    A job's `cores` may exceed its pod template's request, because admission webhooks may add
    containers. ValueError if `cores` is below that request, if jobs differ in `resource` or
    nodeSelector, or if pods require a nodeAffinity.
    """
    jobs = [ref.job for ref in refs]
    resource = refs[0].resource
    if any(ref.resource != resource for ref in refs):
        resources = ", ".join(sorted({ref.resource for ref in refs}))
        problem = f"differs ({resources}); jobs that share capacity share one resource"
        raise ValueError(f"deployments: deployment.resource {problem}")
    specs = [deployment["spec"]["template"]["spec"] for deployment in deployments]

    per_core: dict[str, float] = {}
    for job, spec in zip(jobs, specs):
        requests = requests_of({"spec": spec})
        asked = requests.get(resource, 0.0)
        if asked > job.cores + EPSILON:
            problem = f"is less than the {asked:g} {resource} that its pods request"
            raise ValueError(f"job {job.name!r}: cores={job.cores:g} {problem}")
        requests[resource] = job.cores
        for name, value in requests.items():
            per_core[name] = max(per_core.get(name, 0.0), value / job.cores)

    if any(REQUIRED in spec.get("affinity", {}).get("nodeAffinity", {}) for spec in specs):
        raise ValueError(
            "deployments: a required nodeAffinity is not read; choose the nodes by nodeSelector"
        )

    # The greatest common divisor of the jobs' cores, which are multiples of 0.1.
    quantum = float(np.gcd.reduce([round(job.cores * 10) for job in jobs])) / 10

    tolerated = [spec.get("tolerations", []) for spec in specs]
    tolerations = [one for one in tolerated[0] if all(one in others for others in tolerated)]

    selector = dict(specs[0].get("nodeSelector", {}))
    if any(spec.get("nodeSelector", {}) != selector for spec in specs):
        raise ValueError(
            "deployments: their nodeSelectors differ; jobs share capacity only on the same nodes"
        )
    return Shape(per_core, quantum, tuple(tolerations), selector)
