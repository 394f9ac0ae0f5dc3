"""`faro manifests`: Kubernetes manifests for Faro and the jobs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faro_ops.cli.run import run
from faro_ops.cli.shared import DEFAULT_POLICY, PolicyName, option
from faro_ops.run_options import RunOptions
from faro_ops.section import parsed

if TYPE_CHECKING:
    from faro_ops.operate.kube.manifests import ManifestSpec


def manifests(
    jobs: Annotated[str, option("Table of jobs (.yaml), which says how each job is served.")],
    out: Annotated[str, option("Folder to write to, for `kubectl apply -k`.")] = "manifests",
    backend: Annotated[
        str, option("rayserve (KubeRay) or deployments (any model server).")
    ] = "rayserve",
    namespace: Annotated[str, option("Namespace of all objects.")] = "faro",
    name: Annotated[str, option("Name of the RayService and of the FaroPlan.")] = "faro",
    image: Annotated[
        str, option("Image of controller and replicas (cluster/Dockerfile).")
    ] = "faro:local",
    policy: PolicyName = DEFAULT_POLICY,
    tick: Annotated[float, option("Seconds between ticks.")] = 10.0,
    act: Annotated[
        str, option("What the controller changes: replicas, or ceilings of autoscalers.")
    ] = "replicas",
    dry: Annotated[
        bool, option("The controller prints its plans and scales nothing.", "--dry-run")
    ] = False,
    workers: Annotated[int, option("Number of Ray workers.")] = 2,
    worker_cores: Annotated[int, option("Cores per worker, as Ray counts them.")] = 4,
    worker_memory: Annotated[float, option("GiB of memory per worker.")] = 8.0,
    worker_cpu: Annotated[
        float | None, option("CPU request per worker, in cores.", default="--worker-cores")
    ] = None,
    head_cpu: Annotated[float, option("CPU request of Ray's head.")] = 2.0,
    head_memory: Annotated[float, option("GiB of memory of Ray's head.")] = 4.0,
    operator_namespace: Annotated[
        str, option("Namespace of KubeRay's operator.")
    ] = "kuberay-system",
    ray_version: Annotated[
        str | None, option("Version of Ray in the image.", default="the installed one")
    ] = None,
    prometheus: Annotated[
        str, option("Address of Prometheus: counts of earlier days, queries of jobs.")
    ] = "",
    monitoring_namespace: Annotated[
        str, option("Namespace of Prometheus; only it gets metrics.")
    ] = "monitoring",
    service_monitor: Annotated[
        bool, option("Add a ServiceMonitor and a PrometheusRule.", "--service-monitor")
    ] = False,
    former_namespaces: Annotated[
        list[str] | None,
        option(
            "A namespace without jobs whose autoscalers may still have Faro's bounds.",
            "--former-namespace",
        ),
    ] = None,
    options: Annotated[
        list[str] | None, option("Another option of `faro run`: --option=--earn.", "--option")
    ] = None,
) -> None:
    """Write Kubernetes manifests for kustomize, without any Secret.

    They define the controller, its permissions, a network policy, disruption budgets and a
    dashboard. For rayserve, they also define the RayService and a quota.
    """
    from faro_lib.policies import PolicyContext, factory_of
    from faro_lib.workload.shares import fair_share
    from faro_ops.jobs_table import read_sections, read_unshared
    from faro_ops.operate.controller.model import Source
    from faro_ops.operate.kube.deployments import DeploymentRef
    from faro_ops.operate.kube.manifests import Head, ManifestSpec, Workers, write
    from faro_ops.operate.limits.bounds import predicting
    from faro_ops.operate.rayserve.spec import serve_specs

    if not jobs.endswith((".yaml", ".yml")):
        raise ValueError(f"jobs={jobs!r} must be a .yaml table, which says how each job is served")
    factory = factory_of(policy)  # raises ValueError if the name is unknown
    # ManifestSpec checks the backend.
    usual = {"jobs": jobs, "backend": "deployments", "plan": f"{namespace}/{name}"}
    ceilings = parsed(RunOptions, usual | {"act": act}).ceilings
    table = read_unshared(jobs)
    for job in table:
        if job.latency_curve:
            raise ValueError(
                f"job {job.name!r}: latency_curve={job.latency_curve!r} is a file that the "
                "controller's pod would not have; leave the column out"
            )
    if ceilings:  # ValueError unless `policy` is a Faro policy
        predicting(factory(PolicyContext(table, Source().model(table))))

    of_backend: dict[str, Any]
    if backend == "deployments":
        sections = read_sections(jobs, "deployment")
        refs = [DeploymentRef.of(job, sections[job.name], namespace) for job in table]
        of_backend = {
            "namespaces": tuple(ref.namespace for ref in refs),
            "deployments": tuple(ref.autoscaler if ceilings else ref.name for ref in refs),
            "former_namespaces": tuple(former_namespaces or ()),
        }
    else:
        size = Workers(workers, worker_cores, worker_memory, worker_cpu)
        least = sum(max(1, job.min_replicas) * job.cores for job in table)
        fits = least <= size.total  # if not, ManifestSpec raises
        of_backend = {
            "served": serve_specs(table, read_sections(jobs, "serve")),
            "initial": fair_share(table, size.total).tolist() if fits else [1] * len(table),
            "workers": size,
            "head": Head(head_cpu, head_memory),
            "ray_version": ray_version or _installed_ray(),
            "operator_namespace": operator_namespace,
        }
    spec = ManifestSpec(
        jobs=table,
        jobs_text=Path(jobs).read_text(),
        backend=backend,
        namespace=namespace,
        name=name,
        image=image,
        policy=policy,
        tick_s=tick,
        act=not dry,
        ceilings=ceilings,
        monitor=service_monitor,
        monitoring_namespace=monitoring_namespace,
        prometheus=prometheus,
        options=tuple(options or ()),
        **of_backend,
    )
    _check_arguments(spec)
    for path in write(spec, out):
        print(path)
    _print_commands(backend, namespace, out)


def _check_arguments(spec: ManifestSpec) -> None:
    """Check the controller's options, so that invalid ones fail here and not in the pod."""
    from faro_ops.operate.kube.manifests import arguments

    controller = typer.Typer()
    controller.command()(run)
    _, *words = arguments(spec)
    context = typer.main.get_command(controller).make_context("faro run", words)
    parsed(RunOptions, context.params)


def _print_commands(backend: str, namespace: str, out: str) -> None:
    """Print the commands that apply the manifests."""
    from faro_ops.operate.kube.manifests import APPLY_FIRST, SECRET, SECRET_KEY
    from faro_ops.operate.kube.status import GROUP, PLURAL

    first = " ".join(f"-f {out}/{name}" for name in APPLY_FIRST)
    print("# first the namespace and the CustomResourceDefinition:")
    print(f"kubectl apply --server-side {first}")
    print(f"kubectl wait --for condition=established --timeout 60s crd/{PLURAL}.{GROUP}")
    if backend == "rayserve":
        create = f"kubectl -n {namespace} create secret generic {SECRET}"
        print(
            "# create the token once, before the rest; "
            "the pipe hides it from the list of processes:"
        )
        print(f"openssl rand -hex 32 | tr -d '\\n' | {create} --from-file={SECRET_KEY}=/dev/stdin")
    print(
        "# --force-conflicts resets fields that others changed, "
        "for example the number of controllers:"
    )
    print(f"kubectl apply --server-side --force-conflicts -k {out}")


def _installed_ray() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        raise ValueError(
            "Ray is not installed here; give --ray-version, the version in the image"
        ) from None
