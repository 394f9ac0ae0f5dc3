"""`faro profile`: measured service and start times of the jobs."""

from __future__ import annotations

import math
from typing import Annotated

from faro_lib.cli.shared import Address, ServeAddress, option, say


def profile(
    jobs: Annotated[str, option("Table of jobs, a .yaml file; the measurements are written into it.")],
    backend: Annotated[str, option("local (starts Ray on this machine) or rayserve.")] = "local",
    address: Address = None,
    serve_address: ServeAddress = None,
    requests: Annotated[int, option("Requests to each job, sent one at a time.")] = 200,
    dry: Annotated[bool, option("Print the measurements, and change no file.", "--dry-run")] = False,
) -> None:
    """Measure service times (mean and squared coefficient of variation) and start times; write them into the table."""
    from faro_lib.rayserve.backend import serving
    from faro_lib.rayserve.profile import profile_job, write
    from faro_lib.rayserve.spec import serve_specs
    from faro_lib.workload.readers import read_jobs, read_sections

    if backend not in ("local", "rayserve"):
        raise ValueError(f"backend={backend!r} is unknown; accepted: local, rayserve")
    if not jobs.endswith((".yaml", ".yml")):
        raise ValueError(f"jobs={jobs!r} must be a .yaml table: the measurements are written into it")
    table = read_jobs(jobs)
    how = serve_specs(table, read_sections(jobs, "serve"))
    cores = [job.cores for job in table]
    capacity = math.ceil(sum(cores) + max(cores))  # one replica each, plus one, whose cold start is measured
    profiles = {}
    with serving(
        backend, table, how, [1] * len(table), capacity, address=address, serve_address=serve_address, report=say
    ) as endpoint:
        for job, one in zip(table, how):
            measured = profiles[job.name] = profile_job(endpoint.ray, endpoint.http, job.name, one, requests)
            print(
                f"{job.name}: service {measured.service_time_s * 1e3:.1f} ms, scv {measured.service_scv:.3f}, "
                f"network overhead {measured.network_overhead_s * 1e3:.1f} ms, "
                f"start {measured.cold_start_s:.1f} s ({measured.requests} requests)"
            )
    if not dry:
        write(jobs, profiles)
        say(f"written into {jobs}")
