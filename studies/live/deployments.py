"""A slice of a day on emulated Deployments, whose load and latency a real Prometheus measures."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faro_lib.policies import Policy
from faro_lib.simulate import Run
from faro_lib.workload import Job
from faro_ops.http import HttpClient
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube.client import Api
from faro_ops.operate.kube.deployment_metrics import DeploymentMetrics, Queries
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.rayserve.local import free_ports
from studies.live import emulated_deployments
from studies.live.emulated_deployments import FEWEST, HOST, NAMESPACE, Settings
from studies.live.live_slice import Slice, run_of, script_of, serve_script

SCRAPE_S = 15.0  # trace seconds between two scrapes, the most that docs/kubernetes.md allows
# Wall seconds before the first request, so that every counter has been scraped at 0. Prometheus
# takes up to 5 s to notice a pod.
WARM_UP_S = 15.0
START_S = 60.0


def check_prometheus() -> None:
    """Raise ValueError unless there is a program `prometheus`."""
    if shutil.which("prometheus") is None:
        raise ValueError("prometheus is not installed; on Debian: apt-get install prometheus")


def queries(job: Job) -> Queries:
    """The PromQL queries of a job, as in cluster/jobs.yaml."""
    of = f'{{service="{job.name}"}}[$window]'
    total = f"sum(rate(http_request_seconds_sum{of}))"
    served = f"sum(rate(http_request_seconds_count{of}))"
    buckets = f"sum by (le) (rate(http_request_seconds_bucket{of}))"
    return Queries(
        requests=f"sum(increase(http_requests_total{of}))",
        latency_mean_s=f"{total} / {served}",
        latency_s=f"histogram_quantile({job.quantile:g}, {buckets})",
        refused=f"sum(increase(http_requests_dropped_total{of}))",
        cancelled=f"sum(increase(http_requests_cancelled_total{of}))",
        job=job.name,
    )


@contextmanager
def running(command: list[str], log: Path, ready_url: str) -> Iterator[subprocess.Popen]:
    """A process that has begun to answer; RuntimeError if it ends or does not answer."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_until_ready(process, log, ready_url)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen, log: Path, url: str) -> None:
    client = HttpClient(url)
    until_s = time.monotonic() + START_S
    while True:
        try:
            client.get("")
            return
        except OSError as error:
            problem = str(error)
        if process.poll() is not None or time.monotonic() > until_s:
            last = [problem, *log.read_text(errors="replace").splitlines()][-1]
            raise RuntimeError(f"{url} does not answer: {last}")
        time.sleep(0.1)


def connected(address: str) -> Api:
    """Faro's client of Kubernetes' API, for a server without credentials."""
    from kubernetes.client import Configuration

    def load() -> Configuration:
        configuration = Configuration()
        configuration.host = address
        configuration.proxy = None
        return configuration

    return Api(load, NAMESPACE)


def run_on_deployments(
    one: Slice,
    policy: Policy,
    seed: int,
    journal: Path,
    *,
    max_rps: float,
    balancer: str = FEWEST,
) -> tuple[Run, dict[str, Any]]:
    """Run the slice on emulated Deployments; the run, and the columns of `Served.columns`.

    The controller sees only what Kubernetes' API and Prometheus answer: replicas, counts and
    latencies.
    """
    check_prometheus()
    jobs = one.workload.jobs
    port, prometheus_port = free_ports(2)
    names = [job.name for job in jobs]
    settings = Settings(
        port,
        dict(zip(names, one.initial.tolist())),
        one.max_ongoing_requests,
        jobs[0].cold_start_s / one.scale,
        balancer,
    )
    address, prometheus = f"http://{HOST}:{port}", f"http://{HOST}:{prometheus_port}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: {1000 * SCRAPE_S / one.scale:.0f}ms}}\n"
            "scrape_configs:\n"
            "  - job_name: pods\n"
            f'    http_sd_configs: [{{url: "{address}/targets", refresh_interval: 1s}}]\n'
        )
        pods_command = [sys.executable, "-m", emulated_deployments.__name__, str(settings)]
        prometheus_command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/metrics",
            f"--web.listen-address={HOST}:{prometheus_port}",
        ]
        with (
            running(pods_command, folder / "pods.log", f"{address}/targets") as pods,
            running(
                prometheus_command, folder / "prometheus.log", f"{prometheus}/-/ready"
            ) as server,
        ):
            draws = one.draws(seed)
            script, order = script_of(one, draws, [f"{address}/jobs/{name}" for name in names])
            clock = Clock.starting_now(one.scale, in_s=WARM_UP_S)
            refs = [DeploymentRef(job, NAMESPACE, job.name, queries(job)) for job in jobs]
            metrics = DeploymentMetrics(prometheus)
            cluster = Deployments(connected(address), refs, metrics, clock, one.capacity)
            done = serve_script(
                one,
                policy,
                script,
                cluster,
                clock,
                journal,
                max_rps,
                pids=(pods.pid, server.pid),
            )
    run = run_of(one, draws, order, done.sent, done.decisions, done.wall_s)
    return run, done.columns()
