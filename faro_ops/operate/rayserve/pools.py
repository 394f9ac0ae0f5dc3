"""The application of a pool in Ray Serve's declarative configuration."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from faro_lib.workload import Job, Pool
from faro_ops.operate.rayserve import gateway
from faro_ops.operate.rayserve.spec import ServeSpec


def pool_configuration(
    pool: Pool, jobs: Sequence[Job], specs: Sequence[ServeSpec], replicas: int
) -> dict[str, Any]:
    """The application that serves a pool with this number of replicas.

    jobs, specs : of the pool, in the order of `pool.jobs`.
    """
    of_jobs = [
        {
            "job": job.name,
            "path": spec.route.rpartition("/")[2],
            "slo_s": job.slo_s,
            "import_path": spec.import_path,
            "args": dict(spec.args),
            "max_ongoing_requests": spec.max_ongoing_requests,
        }
        for job, spec in zip(jobs, specs)
    ]
    fields = asdict(pool) | {"jobs": range(len(jobs))}
    described = {
        key: list(value) if isinstance(value, tuple | range) else value
        for key, value in fields.items()
    }
    if math.isinf(pool.memory_gib):
        described["memory_gib"] = None
    first = specs[0]
    return {
        "name": first.application,
        "route_prefix": f"/{first.application}",
        "import_path": f"{gateway.__name__}:pool_application",
        "external_scaler_enabled": True,
        "args": {
            "pool": described,
            "jobs": of_jobs,
            "deployment": first.deployment,
            "gateways": first.gateways,
            "binding": first.binding,
            "cores": pool.cores,
            "replicas": int(replicas),
        },
    }
