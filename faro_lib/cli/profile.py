"""`faro profile`: how long a model and a replica's start really take."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def profile(
    jobs: Annotated[str, typer.Option(help="The table of jobs, a .yaml; what is measured is written into it.")],
    backend: Annotated[str, typer.Option(help="local (starts Ray on this machine) or rayserve.")] = "local",
    address: Annotated[str | None, typer.Option(help="Ray's dashboard, http://host:8265.")] = None,
    serve_address: Annotated[str | None, typer.Option(help="Where the applications are; port 8000 there.")] = None,
    requests: Annotated[int, typer.Option(help="Requests sent to each job, one at a time.")] = 200,
    dry: Annotated[bool, typer.Option("--dry-run", help="Print only.")] = False,
) -> None:
    """Measure service and start times; write them into the table.

    Of the service time: mean and squared coefficient of variation, over --requests requests to each job.
    """
    from faro_lib.rayserve.backend import serving
    from faro_lib.rayserve.profile import profile_job, write
    from faro_lib.rayserve.spec import serve_specs
    from faro_lib.workload.readers import read_jobs, read_sections

    if backend not in ("local", "rayserve"):
        raise ValueError(f"backend={backend!r} is unknown; accepted: local, rayserve")
    if not jobs.endswith((".yaml", ".yml")):
        raise ValueError(f"jobs={jobs!r} must be a .yaml table: what is measured is written into it")
    table = read_jobs(jobs)
    how = serve_specs(table, read_sections(jobs, "serve"))
    cores = int(-(-(sum(job.cores for job in table) + max(job.cores for job in table)) // 1))
    found = {}

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    where = dict(address=address, serve_address=serve_address, report=report)
    with serving(backend, table, how, [1] * len(table), cores, **where) as endpoint:  # type: ignore[arg-type]
        for job, one in zip(table, how):
            found[job.name] = measured = profile_job(endpoint.ray, endpoint.http, job.name, one, requests)
            print(
                f"{job.name}: service {measured.service_time_s * 1e3:.1f} ms, scv {measured.service_scv:.3f}, outside the "
                f"replica {measured.network_overhead_s * 1e3:.1f} ms, start {measured.cold_start_s:.1f} s ({measured.requests} requests)"
            )
    if not dry:
        write(jobs, found)
        report(f"written into {jobs}")
