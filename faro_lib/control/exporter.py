"""The controller's own Prometheus metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from faro_lib.control import Step
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job

PER_JOB = {
    "target": "replicas asked for",
    "running": "replicas that serve",
    "drop_ratio": "share of requests refused at the door",
    "arrivals_per_minute": "requests in the last complete minute",
    "ongoing": "requests inside",
    "measured_p99_seconds": "the job's percentile of latency in the last complete minute",
    "predicted_p99_seconds": "the same as the plan expects it",
    "forecast_rps": "requests a second that the plan expects",
    "utility": "relaxed utility of the last complete minute",
}


class Exporter:
    """Gauges of the last tick, and counts of what went wrong, at http://address:port/metrics.

    At /healthz it answers 200 as long as the loop goes on, else 503, so that whoever started the controller can start it
    anew: a solver that never returns cannot be ended from within. Before its first sign of life the loop is not judged; it
    may wait for a lease.

    Parameters
    ----------
    port : 0 takes a free one; `self.port` says which.
    patience_s : without a tick or a failure for so long the loop stands still.
    """

    def __init__(self, jobs: tuple[Job, ...], port: int, address: str = "127.0.0.1", patience_s: float = math.inf):
        import prometheus_client as prometheus

        self._jobs, self._patience_s = jobs, patience_s
        self._alive_s: float | None = None  # time.monotonic() of the last sign of life
        registry = prometheus.CollectorRegistry()
        self._gauges = {
            name: prometheus.Gauge(f"faro_{name}", told, ["job"], registry=registry) for name, told in PER_JOB.items()
        }
        self._capacity = prometheus.Gauge("faro_capacity_cores", "cores that the jobs may use", registry=registry)
        self._used = prometheus.Gauge("faro_used_cores", "cores of the replicas asked for", registry=registry)
        self._cores = np.array([job.cores for job in jobs])
        self._decision = prometheus.Histogram(
            "faro_decision_seconds", "time of a decision", registry=registry, buckets=[2.0**n for n in range(-10, 5)]
        )
        self._ticks = prometheus.Counter("faro_ticks", "ticks of the loop", registry=registry)
        self._failures = prometheus.Counter("faro_failures", "what went wrong", ["reason"], registry=registry)
        self._reasons = prometheus.Counter("faro_reasons", "reasons of targets", ["job", "reason"], registry=registry)
        try:
            self._server, self._thread = prometheus.start_http_server(port, addr=address, registry=registry)
        except OSError as error:
            raise ValueError(f"metrics port {port} on {address}: {error.strerror or error}; choose another") from None
        self._server.set_app(self._with_health(self._server.get_app()))
        self.port = self._server.server_port

    def _with_health(self, metrics: Any) -> Callable:
        def answer(environ: dict, start_response: Callable):
            if environ["PATH_INFO"] != "/healthz":
                return metrics(environ, start_response)
            silent_s = 0.0 if self._alive_s is None else time.monotonic() - self._alive_s
            status = "200 OK" if silent_s <= self._patience_s else "503 Service Unavailable"
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{silent_s:.0f} s since the last tick\n".encode()]

        return answer

    def step(self, step: Step) -> None:
        self._alive_s = time.monotonic()
        seen, plan = step.observation, step.plan
        history = seen.arrivals_per_min
        slo_s = np.array([job.slo_s for job in self._jobs])
        values: dict[str, Any] = {
            "target": step.target,
            "running": seen.running,
            "drop_ratio": plan.drop,
            "arrivals_per_minute": history[:, -1] if history.shape[1] else None,
            "ongoing": seen.ongoing,
            "measured_p99_seconds": seen.tail_latency_s,
            "predicted_p99_seconds": plan.predicted_tail_latency_s,
            "forecast_rps": plan.forecast_rps,
            "utility": np.where(
                np.isnan(seen.tail_latency_s),
                math.nan,
                relaxed_utility(np.nan_to_num(seen.tail_latency_s, nan=1.0), slo_s),
            ),
        }
        for name, gauge in self._gauges.items():
            column = values[name]
            for place, job in enumerate(self._jobs):
                gauge.labels(job.name).set(math.nan if column is None else float(column[place]))
        self._capacity.set(seen.capacity)
        self._used.set(float(step.target @ self._cores))
        self._decision.observe(step.decision_s)
        self._ticks.inc()
        for job, reason in zip(self._jobs, plan.reason):
            self._reasons.labels(job.name, reason).inc()

    def failure(self, reason: str, told: str) -> None:
        self._alive_s = time.monotonic()
        self._failures.labels(reason).inc()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
