"""`faro run`: the controller, over whatever serves the jobs."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

BACKENDS = ("local", "rayserve", "deployments")
STANDS_STILL_S = 120.0  # and five ticks without a tick or a failure; the longest call takes a minute


def run(
    jobs: Annotated[str, typer.Option(help="The table of jobs; a .yaml may say in `serve` how each is served.")],
    backend: Annotated[
        str, typer.Option(help="local (starts Ray on this machine), rayserve, deployments.")
    ] = "rayserve",
    address: Annotated[str | None, typer.Option(help="Ray's dashboard, http://host:8265.")] = None,
    serve_address: Annotated[str | None, typer.Option(help="Where the applications are; port 8000 there.")] = None,
    policy: Annotated[str, typer.Option(help="Who decides.")] = "Faro-Sum",
    history: Annotated[
        str | None, typer.Option(help="CSV of counts (minute, job, requests[, day]) that forecasts are learnt from.")
    ] = None,
    forecaster: Annotated[str, typer.Option(help="What is learnt from it.")] = "ar",
    apply: Annotated[bool, typer.Option("--apply", help="Act; without it plans are only printed.")] = False,
    journal: Annotated[str | None, typer.Option(help="File of observations and plans; a run resumes from it.")] = None,
    tick: Annotated[float | None, typer.Option(help="Seconds between two ticks; by default the policy's own.")] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Cores that the jobs may use; by default all that there are.")
    ] = None,
    fail_mode: Annotated[str, typer.Option(help="Without data or plan: hold or fair-share.")] = "hold",
    max_scaling_actions: Annotated[int | None, typer.Option(help="Replicas that a decision may move.")] = None,
    stale_after: Annotated[
        float, typer.Option(help="Seconds without a job's data after which the fail mode applies to it.")
    ] = 60.0,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which a decision is discarded; default: no deadline.")
    ] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port of the Prometheus metrics.")] = None,
    metrics_address: Annotated[str, typer.Option(help="Address that they are bound to.")] = "127.0.0.1",
    seconds: Annotated[float | None, typer.Option(help="End after so long; by default never.")] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="Kubernetes: NAMESPACE/NAME of the FaroPlan; takes lease and capacity from there."),
    ] = None,
    kubeconfig: Annotated[str | None, typer.Option(help="In a pod: its ServiceAccount; else the usual one.")] = None,
    context: Annotated[str | None, typer.Option(help="Of the kubeconfig.")] = None,
    prometheus: Annotated[str | None, typer.Option(help="Address that the queries of `deployment` go to.")] = None,
    prometheus_token: Annotated[str | None, typer.Option(help="File of a bearer token for it.")] = None,
) -> None:
    """Observe, decide and, with --apply, act, until SIGTERM or Ctrl-C; the cluster is left as it is."""
    from faro_lib import control
    from faro_lib.control import GuardrailConfig
    from faro_lib.files import writable
    from faro_lib.policies import make
    from faro_lib.policies.loops import paced
    from faro_lib.workload.readers import read_jobs

    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r} is unknown; accepted: {', '.join(BACKENDS)}")
    table = read_jobs(jobs)
    guardrails = GuardrailConfig(fail_mode, max_scaling_actions, stale_after, deadline)
    decides = make(policy, kit_for(table, history, forecaster))
    if tick is not None:
        decides = paced(decides, tick)
    stop = threading.Event()
    with ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):
            before = signal.signal(number, lambda number, _: ending(stop, number))
            stack.callback(signal.signal, number, before)
        exporter = None
        if metrics_port is not None:  # first of all: a port in use is found before a cluster is started
            from faro_lib.control.exporter import Exporter

            exporter = Exporter(table, metrics_port, metrics_address, STANDS_STILL_S + 5 * decides.tick_s)
            stack.callback(exporter.close)
            say(f"metrics at http://{metrics_address}:{exporter.port}/metrics")
        if journal is not None:
            writable(journal)
        clock = clock_of(journal, stop)
        place = place_of(backend, plan, kubeconfig, context)
        if backend == "deployments":
            cluster = deployments_of(place, table, jobs, prometheus, prometheus_token, clock, replicas)
        else:
            cluster = stack.enter_context(
                cluster_of(backend, table, jobs, address, serve_address, replicas, clock, decides)
            )
        publish = None
        if place:
            from faro_lib.kube.operate import gated_cluster

            governing = gated_cluster(place, cluster, table, policy, stop, act=apply, fixed=replicas is not None, report=say)
            cluster, publish = stack.enter_context(governing)

        def on_step(step) -> None:
            if publish:
                publish(step)
            if exporter:
                exporter.step(step)
            told = {
                job.name: {"replicas": int(target), "drop": round(float(drop), 4), "reason": reason}
                for job, target, drop, reason in zip(table, step.target, step.plan.drop, step.plan.reason)
            }
            print(json.dumps({"now_s": step.observation.now_s, "applied": apply, "plan": told}), flush=True)

        def on_failure(reason: str, told: str) -> None:
            if exporter:
                exporter.failure(reason, told)
            say(f"faro: {reason}: {told}")

        until_s = float("inf") if seconds is None else clock.now_s + seconds
        control.run(
            cluster,
            decides,
            table,
            guardrails=guardrails,
            apply=apply,
            journal=journal,
            clock=clock,
            until_s=until_s,
            stop=stop,
            on_step=on_step,
            on_failure=on_failure,
        )


def kit_for(table, history: str | None, forecaster: str):
    """What a policy is made from; the forecaster learnt from the counts in `history`, or needs to learn nothing."""
    from faro_lib import forecast
    from faro_lib.forecast.kalman import untaught
    from faro_lib.policies import PolicyContext
    from faro_lib.rayserve.spec import MAX_ONGOING_REQUESTS
    from faro_lib.simulate import ServingModel
    from faro_lib.simulate.measure import measure
    from faro_lib.workload import Traces
    from faro_lib.workload.readers import read_csv

    if history:
        traces = read_csv(history, table)
        days = traces.train if traces.days else traces.evaluation[None]
        learnt = forecast.fit(forecaster, Traces(table, days, traces.evaluation))
    else:
        learnt = untaught(tuple(job.name for job in table))
    serving_model = ServingModel("least-outstanding", max_ongoing_requests=MAX_ONGOING_REQUESTS)
    return PolicyContext(
        table, forecaster=learnt, latency_model=measure(table, minutes=20, serving_model=serving_model)
    )


def ending(stop: threading.Event, number: int) -> None:
    """End after this tick; a second Ctrl-C does not wait for it, nor for a Ray that is still being started."""
    if number == signal.SIGINT and stop.is_set():
        raise KeyboardInterrupt
    stop.set()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def place_of(backend: str, plan: str | None, kubeconfig: str | None, context: str | None):
    """Where in Kubernetes the controller is at home; None outside of it."""
    if plan is None:
        if backend == "deployments":
            raise ValueError("backend=deployments needs --plan NAMESPACE/NAME")
        return None
    from faro_lib.kube.operate import NamespacedName

    logging.basicConfig(level=logging.INFO, format="faro: %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # each of its attempts; we tell what became of them
    return NamespacedName.of(plan, kubeconfig, context)


def deployments_of(place, table, path: str, prometheus: str | None, token: str | None, clock, cores: int | None):
    """Plain Deployments, by the section `deployment` of the table."""
    from faro_lib.kube.deployment_metrics import DeploymentMetrics
    from faro_lib.kube.operate import connect_deployments
    from faro_lib.workload.readers import read_sections

    if prometheus is None:
        raise ValueError("backend=deployments needs --prometheus, the address that the jobs' queries go to")
    sections, metrics = read_sections(path, "deployment"), DeploymentMetrics(prometheus, token)
    return connect_deployments(place, table, sections, metrics, clock, cores)


def clock_of(journal: str | None, stop: threading.Event):
    """Wall time since the journal began; without one since a while ago, so that what is known of that while counts."""
    from faro_lib.control.clock import Clock
    from faro_lib.control.journal import read
    from faro_lib.policies.protocol import HISTORY_MINUTES

    if journal and Path(journal).exists() and Path(journal).stat().st_size:
        header, ticks = read(journal)
        if ticks and header.origin_s is not None:
            return Clock(header.origin_s, header.scale, stop)
    return Clock.starting_now(stop=stop, in_s=-HISTORY_MINUTES * 60.0)


def cluster_of(backend: str, table, path: str, address, serve_address, replicas: int | None, clock, policy):
    """A context in which Ray serves the jobs."""
    from contextlib import contextmanager

    from faro_lib.memory import must_fit, ray_gb
    from faro_lib.rayserve.backend import serving
    from faro_lib.rayserve.cluster import RayServeCluster
    from faro_lib.rayserve.spec import serve_specs
    from faro_lib.workload.readers import read_sections

    sections = read_sections(path, "serve") if path.endswith((".yaml", ".yml")) else {}
    how = serve_specs(table, sections)
    if backend == "local" and replicas is None:
        raise ValueError("backend=local needs --replicas, the size of the cluster that it starts")
    if backend == "local" and replicas is not None:
        must_fit(f"{replicas} replicas of Ray Serve need", ray_gb(replicas), "take fewer replicas")

    @contextmanager
    def there():
        initial = policy.initial(table, replicas) if replicas else [1] * len(table)
        places = dict(address=address, serve_address=serve_address)
        with serving(backend, table, how, initial, replicas or 0, report=say, **places) as endpoint:
            cluster = RayServeCluster(table, how, endpoint.ray, endpoint.http, clock, replicas)
            cluster.connect()
            say(f"serving at {endpoint.http.address}, Ray at {endpoint.ray.address}")
            yield cluster

    return there()
