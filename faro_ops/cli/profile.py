"""`faro profile`: measure service times, cold starts and how replicas process requests."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from faro_ops.cli.shared import Address, ServeAddress, option
from faro_ops.log import say


def profile(
    jobs: Annotated[str, option("Table of jobs (.yaml), into which the measurements are written.")],
    backend: Annotated[str, option("local (starts Ray on this machine) or rayserve.")] = "local",
    address: Address = None,
    serve_address: ServeAddress = None,
    requests: Annotated[int, option("Requests to each job, sent one at a time.")] = 200,
    seconds: Annotated[
        float, option("Seconds of load at each rate; 0 = do not measure the kind of replica.")
    ] = 20.0,
    dry: Annotated[
        bool, option("Print the measurements and leave the table unchanged.", "--dry-run")
    ] = False,
) -> None:
    """Measure service times, cold starts and the kind of replica.

    Open-loop load rises until the p99 latency exceeds three times the SLO. The latencies show
    whether a replica serves requests one at a time, concurrently or in batches. The results go into
    the table, and figures go into its folder.
    """
    from faro_lib.figures.style import save
    from faro_ops.advise.calibrate.figure import latency_by_rate
    from faro_ops.advise.profile.load_profile import measure_kind
    from faro_ops.advise.profile.profile import profile_job, write_profiles
    from faro_ops.jobs_table import read_sections, read_served, read_unshared
    from faro_ops.operate.rayserve.backend import serving
    from faro_ops.operate.rayserve.running_job import RunningJob
    from faro_ops.operate.rayserve.spec import serve_specs

    if address or serve_address:
        backend = "rayserve"
    if backend not in ("local", "rayserve"):
        raise ValueError(f"backend={backend!r} is unknown; accepted: local, rayserve")
    if not jobs.endswith((".yaml", ".yml")):
        raise ValueError(
            f"jobs={jobs!r} must be a .yaml table: the measurements are written into it"
        )
    # Started here, each service gets replicas of its own, also if it will share some.
    shared = read_served(jobs) if backend == "local" else read_unshared(jobs)
    table = tuple(replace(job, pool="") for job in shared)
    specs = serve_specs(table, read_sections(jobs, "serve"))
    cores = [job.cores for job in table]
    # One replica per job, and one more to time a cold start.
    capacity = math.ceil(sum(cores) + max(cores))
    ray = serving(
        backend,
        table,
        specs,
        [1] * len(table),
        capacity,
        address=address,
        serve_address=serve_address,
        report=say,
    )
    with ray as endpoint:
        for job, spec in zip(table, specs):
            service = RunningJob(endpoint.ray, endpoint.http, job.name, spec)
            measured = profile_job(service, requests)
            print(
                f"{job.name}: service {measured.service_time_s * 1e3:.1f} ms, "
                f"scv {measured.service_scv:.3f}, "
                f"network overhead {measured.network_overhead_s * 1e3:.1f} ms, "
                f"start {measured.cold_start_s:.1f} s ({measured.requests} requests)"
            )
            try:
                if seconds:
                    load, calibration = measure_kind(service, job, measured, seconds)
                    measured = replace(measured, calibration=calibration)
                    print("\n".join(f"  {line}" for line in calibration.lines()))
                    name = f"{Path(jobs).stem}-{spec.application}"
                    drawn = save(latency_by_rate(load, calibration), Path(jobs).parent, name)
                    say(f"measured and fitted latencies drawn in {drawn}")
            except ValueError as error:
                say(f"{job.name}: its kind of replica is not measured: {error}")
            if not dry:  # written after each job, so that a later failure loses nothing
                write_profiles(jobs, {job.name: measured})
                say(f"{job.name}: measurements written to {jobs}")
