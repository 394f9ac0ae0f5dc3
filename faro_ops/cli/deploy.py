"""`faro deploy`: deploy the jobs of a table to a running Ray."""

from typing import Annotated

from faro_ops.cli.shared import option
from faro_ops.log import say


def deploy(
    jobs: Annotated[
        str, option("Table of jobs (.csv, .yaml); a section `serve` says how Ray Serve runs a job.")
    ],
    address: Annotated[str, option("Address of Ray's dashboard, http://host:8265.")],
    start_timeout: Annotated[float, option("Seconds until all jobs must run.")] = 180.0,
    dry: Annotated[
        bool, option("Print the configuration of Ray Serve and deploy nothing.", "--dry-run")
    ] = False,
) -> None:
    """Deploy the jobs to a running Ray, and wait until they serve.

    Each job is an application; the jobs of a pool are one application with a gateway. Jobs that run
    already keep their replicas, and applications of other programs stay. A job that is no longer in
    the table is removed from Ray.
    """
    import yaml

    from faro_ops.jobs_table import read_sections, read_served
    from faro_ops.operate.rayserve.backend import serving
    from faro_ops.operate.rayserve.deploy import configuration, merged
    from faro_ops.operate.rayserve.deploy import deploy as deployed
    from faro_ops.operate.rayserve.spec import serve_specs

    table = read_served(jobs)
    specs = serve_specs(table, read_sections(jobs, "serve"))
    initial = [max(1, job.min_replicas) for job in table]
    with serving("rayserve", table, specs, initial, 0, address=address) as endpoint:
        applications, gone = merged(endpoint.ray, configuration(table, specs, initial))
        for name in gone:
            removed = "it would be removed" if dry else "it is removed"
            say(f"application {name!r} is no longer in {jobs}: {removed}")
        if dry:
            print(yaml.safe_dump({"applications": applications}, sort_keys=False), end="")
        else:
            deployed(endpoint.ray, applications, report=say, timeout_s=start_timeout)
            say("all applications of Faro run")
