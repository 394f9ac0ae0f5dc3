"""`faro restore`: give HPAs back the bounds that they had before `faro run --act ceilings`."""

from typing import Annotated

from faro_ops.cli.shared import option, say


def restore(
    jobs: Annotated[str, option("Table of jobs (.yaml) with the sections `deployment`.")],
    plan: Annotated[str, option("NAMESPACE/NAME of the controller's FaroPlan.")],
    unled: Annotated[float, option("Only if no controller has led for this many seconds.")] = 0.0,
    kubeconfig: Annotated[
        str | None, option("kubeconfig file.", default="in a pod its ServiceAccount")
    ] = None,
    context: Annotated[str | None, option("kubeconfig context.", default="the current one")] = None,
) -> None:
    """Give HPAs their original bounds back. Stop the controller first."""
    from faro_lib.workload.readers import read_jobs
    from faro_ops.jobs_table import read_sections
    from faro_ops.kube import hpa_bounds
    from faro_ops.kube.deployments import AUTOSCALERS, DeploymentRef, listed
    from faro_ops.kube.lease import seconds_unled
    from faro_ops.kube.operate import NamespacedName
    from faro_ops.kube.preflight import check_server

    home = NamespacedName.of(plan, kubeconfig, context)
    api = home.connect()
    check_server(api)
    sections = read_sections(jobs, "deployment")
    refs = [
        DeploymentRef.of(job, sections.get(job.name, {}), home.namespace) for job in read_jobs(jobs)
    ]
    if unled:
        idle_s = seconds_unled(api, home.namespace, home.name)
        if idle_s < unled:
            say(f"a controller led {idle_s:.0f} s ago; nothing is restored")
            return
    # Include all HPAs in the jobs' namespaces, because Faro may have changed HPAs of jobs that have
    # left the table.
    lines = hpa_bounds.restore(api, listed(api, refs, *AUTOSCALERS))
    for line in lines or ["no autoscaler has bounds of Faro"]:
        say(line)
    if failed := sum(": not restored: " in line for line in lines):
        raise ValueError(f"{failed} of {len(lines)} autoscalers are not restored")
