"""`faro run`: the autoscaling loop on a live cluster."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

from faro_ops.cli import shared
from faro_ops.cli.shared import cores, option

if TYPE_CHECKING:
    from faro_lib.control import Step
    from faro_lib.workload import Job


def run(
    jobs: Annotated[
        str, option("Table of jobs, .yaml or .csv; a .yaml says how each job is served.")
    ],
    backend: Annotated[
        str, option("local (starts Ray here), rayserve or deployments.")
    ] = "rayserve",
    address: shared.Address = None,
    serve_address: shared.ServeAddress = None,
    policy: shared.PolicyName = shared.DEFAULT_POLICY,
    history: Annotated[
        str | None,
        option(
            "Counts to learn from: a file (job, requests, minute[, day] or time; or a log with a "
            "row for each request), or `prometheus` or `journal`."
        ),
    ] = None,
    forecaster: Annotated[str, option("Forecaster to fit to --history.")] = "auto",
    no_learning: shared.NoLearning = False,
    apply: Annotated[
        bool, option("Scale the jobs; without it, only print plans.", "--apply")
    ] = False,
    act: Annotated[
        str,
        option(
            "What --apply changes: replicas, or ceilings, the bounds of HorizontalPodAutoscalers."
        ),
    ] = "replicas",
    earn: Annotated[
        bool, option("Change a service only as far as it has earned (faro trust).", "--earn")
    ] = False,
    journal: Annotated[
        str | None, option("Folder that records every tick; a run resumes from it.")
    ] = None,
    tick: Annotated[
        float | None, option("Seconds between ticks.", default="the policy's own")
    ] = None,
    capacity: Annotated[
        int | None, cores("Cores that the jobs may use.", default="all cores of the cluster")
    ] = None,
    fail_mode: Annotated[
        str, option("Response to missing data or a failed policy: hold or fair-share.")
    ] = "hold",
    max_scaling_actions: Annotated[
        int | None, option("Replicas that one tick may add or remove.")
    ] = None,
    max_scale_down: Annotated[
        float,
        option("Largest share of all replicas that is removed a minute; at least one may be."),
    ] = 0.2,
    stale_after: Annotated[
        float, option("Seconds without a job's data until the fail mode applies.")
    ] = 60.0,
    deadline: Annotated[
        float | None, option("Seconds after which a decision is discarded.", default="never")
    ] = None,
    metrics_port: Annotated[
        int | None, option("Port that serves Prometheus metrics; 0: any.")
    ] = None,
    metrics_address: Annotated[str, option("Network address of the metrics port.")] = "127.0.0.1",
    seconds: Annotated[
        float | None, option("Seconds after which the run stops.", default="never")
    ] = None,
    plan: Annotated[
        str | None, option("NAMESPACE/NAME of the FaroPlan and its Lease (Kubernetes).")
    ] = None,
    kubeconfig: Annotated[
        str | None, option("kubeconfig file.", default="in a pod its ServiceAccount")
    ] = None,
    context: Annotated[str | None, option("kubeconfig context.", default="the current one")] = None,
    prometheus: shared.PrometheusAddress = None,
    prometheus_token: shared.PrometheusToken = None,
    ca_file: shared.CaFile = None,
    log: shared.LogFormat = "text",
    force: Annotated[
        bool, option("Take over from another controller; overrule other clients.", "--force")
    ] = False,
    start_timeout: Annotated[
        float, option("Seconds that a Ray started here, and its jobs, may take.")
    ] = 180.0,
    watch: Annotated[
        bool,
        option("Draw the jobs after every tick instead of printing a line of JSON.", "--watch"),
    ] = False,
    wait: Annotated[
        bool, option("If jobs are not served yet, wait (unready) instead of exiting.", "--wait")
    ] = False,
) -> None:
    """Run the autoscaling loop; without --apply, only print its plans.

    SIGTERM or Ctrl-C stops the loop; the replicas then stay as they are.
    """
    from faro_ops.operate.controller.controller import Controller, RunOptions
    from faro_ops.protocol import LiveGuardrails

    show = partial(printing, apply)
    if watch:
        from faro_ops.cli.view import check_terminal, watching

        check_terminal()
        show = partial(watching, title=policy if apply else f"{policy}, dry run")
    options = RunOptions(
        jobs=jobs,
        backend=backend,
        address=address,
        serve_address=serve_address,
        policy=policy,
        history=history,
        forecaster=forecaster,
        learning=not no_learning,
        apply=apply,
        act=act,
        earn=earn,
        journal=journal,
        tick_s=tick,
        capacity=capacity,
        guardrails=LiveGuardrails(
            fail_mode=fail_mode,
            max_scaling_actions=max_scaling_actions,
            stale_after_s=stale_after,
            deadline_s=deadline,
            force=force,
            max_scale_down=max_scale_down,
        ),
        metrics_port=metrics_port,
        metrics_address=metrics_address,
        seconds=seconds,
        plan=plan,
        kubeconfig=kubeconfig,
        context=context,
        prometheus=prometheus,
        prometheus_token=prometheus_token,
        force=force,
        start_timeout_s=start_timeout,
        wait=wait,
    )
    with ExitStack() as resources:
        Controller(options, resources, show).run()


@contextmanager
def printing(applied: bool, jobs: "tuple[Job, ...]") -> "Iterator[Callable[[Step], None]]":
    """Yield the function that prints each step."""
    yield partial(print_step, jobs, applied)


def print_step(jobs: "tuple[Job, ...]", applied: bool, step: "Step") -> None:
    """Print a tick as a line of JSON: its time, whether it was applied, and each job's plan."""
    plan = {
        job.name: {"replicas": int(target), "drop": round(float(drop), 4), "reason": reason}
        for job, target, drop, reason in zip(jobs, step.target, step.plan.drop, step.plan.reason)
    }
    tick = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "now_s": step.observation.now_s,
        "applied": applied and step.error is None,
        "plan": plan,
    }
    print(json.dumps(tick), flush=True)
