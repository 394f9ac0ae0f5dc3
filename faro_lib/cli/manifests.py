"""`faro manifests`: what a Kubernetes cluster needs to run Faro, as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def manifests(
    jobs: Annotated[str, typer.Option(help="The table of jobs, .yaml.")],
    out: Annotated[str, typer.Option(help="Folder to write to; kubectl apply -k takes it.")] = "manifests",
    backend: Annotated[str, typer.Option(help="rayserve (KubeRay) or deployments (any model server).")] = "rayserve",
    namespace: Annotated[str, typer.Option(help="Where everything goes.")] = "faro",
    name: Annotated[str, typer.Option(help="Of the RayService and of the FaroPlan.")] = "faro",
    image: Annotated[
        str, typer.Option(help="Of the controller and of the replicas (cluster/Dockerfile).")
    ] = "faro:local",
    policy: Annotated[str, typer.Option(help="Who decides.")] = "Faro-Sum",
    tick: Annotated[float, typer.Option(help="Seconds between two ticks.")] = 60.0,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="A controller that prints its plans and changes nothing.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Ray workers.")] = 2,
    worker_cores: Annotated[int, typer.Option(help="Cores of each.")] = 4,
    worker_memory: Annotated[float, typer.Option(help="GiB of each.")] = 8.0,
    worker_cpu: Annotated[
        float | None,
        typer.Option(help="What each requests of its node, where replicas mostly wait; by default its cores."),
    ] = None,
    ray_version: Annotated[
        str | None, typer.Option(help="Ray in the image; by default the one that is installed.")
    ] = None,
    prometheus: Annotated[str, typer.Option(help="Address of Prometheus (deployments).")] = "",
    service_monitor: Annotated[bool, typer.Option("--service-monitor", help="For the Prometheus operator.")] = False,
) -> None:
    """Write Kubernetes manifests for kustomize, without any secret.

    RayService, controller, rights, quota, network policy, disruption budgets, dashboard.
    """
    from faro_lib.kube.deployments import DeploymentRef
    from faro_lib.kube.manifests import APPLY_FIRST, SECRET, SECRET_KEY, ManifestSpec, Workers, write
    from faro_lib.kube.status import GROUP, PLURAL
    from faro_lib.policies import factory_of
    from faro_lib.policies.baselines import fair_share
    from faro_lib.rayserve.spec import serve_specs
    from faro_lib.workload.readers import read_jobs, read_sections

    if not jobs.endswith((".yaml", ".yml")):
        raise ValueError(f"jobs={jobs!r} must be a .yaml table: only that says how jobs are served")
    factory_of(policy)  # refuses a name that nobody has registered
    table = read_jobs(jobs)
    common: dict[str, Any] = dict(jobs=table, jobs_text=Path(jobs).read_text(), backend=backend, namespace=namespace)
    common |= dict(name=name, image=image, policy=policy, tick_s=tick, act=not dry, monitor=service_monitor)
    if backend == "deployments":
        sections = read_sections(jobs, "deployment")
        addresses = tuple(DeploymentRef.of(job, sections[job.name], namespace) for job in table)
        wanted = ManifestSpec(**common, addresses=addresses, prometheus=prometheus)
    else:
        how, size = (
            serve_specs(table, read_sections(jobs, "serve")),
            Workers(workers, worker_cores, worker_memory, worker_cpu),
        )
        everybody = sum(max(1, job.min_replicas) * job.cores for job in table) <= size.total
        initial = fair_share(table, size.total).tolist() if everybody else [1] * len(table)  # ManifestSpec says what is wrong
        ray = ray_version or _installed_ray()
        wanted = ManifestSpec(**common, served=how, initial=initial, workers=size, ray_version=ray)
    for path in write(wanted, out):
        print(path)
    print("# namespace and definition first:")
    print(f"kubectl apply --server-side {' '.join(f'-f {out}/{name}' for name in APPLY_FIRST)}")
    print(f"kubectl wait --for condition=established --timeout 60s crd/{PLURAL}.{GROUP}")
    if backend == "rayserve":
        secret = f"kubectl -n {namespace} create secret generic {SECRET}"
        print("# the token is yours to make, once, before the rest; by a pipe it is in no list of processes:")
        print(f"openssl rand -hex 32 | tr -d '\\n' | {secret} --from-file={SECRET_KEY}=/dev/stdin")
    print("# the policy's name and the controllers' count are written by others too: the manifests win")
    print(f"kubectl apply --server-side --force-conflicts -k {out}")


def _installed_ray() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ray")
    except PackageNotFoundError:
        raise ValueError("ray_version: Ray is not installed here; --ray-version says which one the image has") from None
