"""`faro profile`: measure the jobs' service times and cold starts."""

import math
from typing import Annotated, Any

from faro_lib.cli.shared import Address, ServeAddress, option, say


def profile(
    jobs: Annotated[str, option("Table of jobs (.yaml), into which the measurements are written.")],
    backend: Annotated[str, option("local (starts Ray on this machine) or rayserve.")] = "local",
    address: Address = None,
    serve_address: ServeAddress = None,
    requests: Annotated[int, option("Requests to each job, sent one at a time.")] = 200,
    dry: Annotated[bool, option("Print the measurements and leave the table unchanged.", "--dry-run")] = False,
) -> None:
    """Measure each job's service time (mean, squared coefficient of variation) and cold start; write them to the table."""
    from faro_lib.rayserve.backend import serving
    from faro_lib.rayserve.profile import profile_job, write_profiles
    from faro_lib.rayserve.spec import serve_specs
    from faro_lib.workload.readers import read_jobs, read_sections

    if backend not in ("local", "rayserve"):
        raise ValueError(f"backend={backend!r} is unknown; accepted: local, rayserve")
    if not jobs.endswith((".yaml", ".yml")):
        raise ValueError(f"jobs={jobs!r} must be a .yaml table: the measurements are written into it")
    table = read_jobs(jobs)
    specs = serve_specs(table, read_sections(jobs, "serve"))
    cores = [job.cores for job in table]
    capacity = math.ceil(sum(cores) + max(cores))  # one replica per job, and one more to time a cold start
    profiles = {}
    addresses: dict[str, Any] = dict(address=address, serve_address=serve_address)
    with serving(backend, table, specs, [1] * len(table), capacity, report=say, **addresses) as endpoint:
        for job, spec in zip(table, specs):
            measured = profiles[job.name] = profile_job(endpoint.ray, endpoint.http, job.name, spec, requests)
            print(
                f"{job.name}: service {measured.service_time_s * 1e3:.1f} ms, scv {measured.service_scv:.3f}, "
                f"network overhead {measured.network_overhead_s * 1e3:.1f} ms, "
                f"start {measured.cold_start_s:.1f} s ({measured.requests} requests)"
            )
    if not dry:
        write_profiles(jobs, profiles)
        say(f"measurements written to {jobs}")
