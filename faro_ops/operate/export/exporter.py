"""Prometheus metrics of the control loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import prometheus_client as prometheus
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from faro_lib.control.tick import Step
from faro_lib.protocol import DECILES, Observation
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, arrays_of, pools_of
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.operate.export.metrics_server import MetricsServer
from faro_ops.operate.job_states import STATES, JobStates
from faro_ops.operate.limits.bounds import KEEP_FLOOR
from faro_ops.protocol import live_observation, live_plan

# Gauges per job: (name, help text, attribute of `Step`). The label is `inference_job`, because
# Prometheus itself sets `job`.
GAUGES = (
    ("faro_desired_replicas", "replicas requested", "target"),
    ("faro_running_replicas", "replicas that serve", "observation.running"),
    ("faro_drop_ratio", "fraction of requests dropped on arrival", "plan.drop"),
    ("faro_ongoing_requests", "requests in the system", "observation.ongoing"),
    (
        "faro_failed_requests_per_minute",
        "requests that failed in the last complete minute",
        "observation.failed_per_min",
    ),
    (
        "faro_refused_requests_per_minute",
        "requests that were refused in the last complete minute",
        "observation.refused_per_min",
    ),
    (
        "faro_cancelled_requests_per_minute",
        "requests of the last complete minute whose client hung up",
        "observation.cancelled_per_min",
    ),
    (
        "faro_tail_latency_seconds",
        "latency quantile of the last complete minute",
        "observation.tail_latency_s",
    ),
    (
        "faro_predicted_tail_latency_seconds",
        "latency quantile of the plan",
        "plan.predicted_tail_latency_s",
    ),
    (
        "faro_first_token_seconds",
        "quantile of the time to the first token in the last complete minute",
        "observation.first_token_s",
    ),
    (
        "faro_per_token_seconds",
        "quantile of the time per later token in the last complete minute",
        "observation.per_token_s",
    ),
    (
        "faro_goodput_rps",
        "requests per second in the last complete minute that met the SLO",
        "observation.goodput_rps",
    ),
    ("faro_forecast_rps", "requests per second in the plan", "plan.forecast_rps"),
    (
        "faro_service_time_factor",
        "learned service time divided by that of the jobs' table",
        "plan.service_factor",
    ),
    (
        "faro_service_time_relative_error",
        "relative standard error of the learned service time",
        "plan.service_factor_error",
    ),
)
# Counters per job: name -> help text. `MinuteScores` computes their increases.
SUMS = {
    "faro_slo_minutes_total": "complete minutes whose latency is known, or without requests",
    "faro_slo_missed_minutes_total": "those of them whose latency quantile was above the SLO",
    "faro_forecast_minutes_total": (
        "minutes whose forecast was compared with the requests that arrived"
    ),
    "faro_forecast_crps_rps_total": (
        "sum of the CRPS of these forecasts, made in the minute before, in requests per second"
    ),
    "faro_forecast_covered_minutes_total": (
        "those of them whose requests were within the 80 % prediction interval"
    ),
}


class MinuteScores:
    """Compares each complete minute's latency with the SLO, and its arrivals with the forecast.

    The forecast is the last one made before that minute.
    """

    def __init__(self, jobs: tuple[Job, ...]):
        self._slo_s = arrays_of(jobs).slo_s
        self._minute = -1  # the last minute that was scored
        # Minute -> deciles of its forecast rate, requests/s (jobs, 9).
        self._forecasts: dict[int, np.ndarray] = {}

    def of_new_minute(self, step: Step) -> dict[str, np.ndarray]:
        """Map each counter in SUMS to its increase (jobs,); {} if no minute has ended since."""
        observation, scores = step.observation, {}
        if observation.minute > self._minute and observation.arrivals_per_min.shape[1]:
            scores = self._scores(observation)
            self._minute = observation.minute
            coming = observation.minute
            self._forecasts = {n: one for n, one in self._forecasts.items() if n >= coming}
        if step.plan.next_minute_deciles_rps is not None:
            self._forecasts[observation.minute + 1] = step.plan.next_minute_deciles_rps
        return scores

    def _scores(self, observation: Observation) -> dict[str, np.ndarray]:
        """The increases for the observation's last complete minute."""
        rps, latency_s = observation.arrivals_per_min[:, -1] / MINUTE_S, observation.tail_latency_s
        known = np.isfinite(rps) & (~np.isnan(latency_s) | (rps == 0))
        none = np.full((len(rps), len(DECILES)), np.nan)
        deciles = self._forecasts.get(observation.minute - 1, none)
        error = rps[:, None] - deciles
        # The CRPS is twice the mean pinball loss over all quantiles; deciles approximate it.
        crps = 2 * np.maximum(DECILES * error, (DECILES - 1) * error).mean(axis=1)
        covered = (deciles[:, 0] <= rps) & (rps <= deciles[:, -1])
        missed = known & (latency_s > self._slo_s)
        values = (known, missed, np.isfinite(crps), np.nan_to_num(crps), covered)
        return dict(zip(SUMS, values))


class WhileDeciding(Collector):
    """The metrics of `registry`, exported only while `decides()` is True."""

    def __init__(self, registry: prometheus.CollectorRegistry, decides: Callable[[], bool]):
        self._registry = registry
        self._decides = decides

    def collect(self) -> Iterator[Metric]:
        if self._decides():
            yield from self._registry.collect()

    def describe(self) -> Iterable[Metric]:
        return ()


class JobStateCollector(Collector):
    """The board of job states, and what else is known of single jobs, at the time of the scrape.

    pending : returns the number of pods that wait, of each job that has some; None: unknown.
    """

    def __init__(self, states: JobStates, pending: Callable[[], Mapping[str, int] | None]):
        self._states = states
        self._pending = pending
        self.jobs: tuple[str, ...] = ()  # names

    def collect(self) -> Iterator[Metric]:
        label = ["inference_job"]
        state = GaugeMetricFamily(
            "faro_job_state", "1 for the state of the job, else 0", labels=[*label, "state"]
        )
        age = GaugeMetricFamily(
            "faro_job_data_age_seconds",
            "seconds since the job's load and latency were last known",
            labels=label,
        )
        waiting = GaugeMetricFamily(
            "faro_pending_pods", "pods of the job that wait for a node or an image", labels=label
        )
        orders = GaugeMetricFamily(
            "faro_order_not_in_force", "1 if an order for the job is not in force", labels=label
        )
        pending = self._pending()
        for job in self.jobs:
            now = self._states.of(job).state
            for one in STATES:
                state.add_metric([job, one], float(one == now))
            age.add_metric([job], self._states.data_age_s(job))
            if pending is not None:
                waiting.add_metric([job], pending.get(job, 0))
        for job in self._states.refused_orders():
            orders.add_metric([job], 1.0)
        return iter((state, age, waiting, orders))

    def describe(self) -> Iterable[Metric]:
        return ()


class Exporter:
    """An HTTP server with metrics of the loop at /metrics; port 0 stands for any free one.

    /healthz answers 503 if the loop runs (`begin`) and has reported neither a tick nor a failure
    for `progress_deadline_s`. Before it runs, /healthz answers 200, because the loop may wait to be
    the leader, or for a server that does not answer. /readyz answers 503 whenever /healthz does. It
    also answers 503 while `waits_for` holds a reason why the loop cannot start yet. If plans are
    not applied (`applies` is False), `faro_least_replicas` stays unset, because its alert
    FaroPlanNotCarriedOut must not fire.

    What a leader decides and knows of the cluster, such as targets and capacity, is exported only
    after the first tick and while this process leads: an earlier leader would contradict the new.

    states : board of what is wrong with single jobs.
    leads : returns whether this process is the leader; None if there is no election.
    pending : returns the number of pods that wait, of each job that has some; None: unknown.
    """

    def __init__(
        self,
        jobs: tuple[Job, ...],
        port: int,
        address: str = "127.0.0.1",
        progress_deadline_s: float = math.inf,
        applies: bool = True,
        states: JobStates | None = None,
        leads: Callable[[], bool | None] = lambda: None,
        pending: Callable[[], Mapping[str, int] | None] = lambda: None,
    ):
        self.progress_deadline_s, self._applies = progress_deadline_s, applies
        self._leads = leads
        self.waits_for: str | None = None
        # time.monotonic() of the last tick or failure; None while the loop does not run
        self._progress_s: float | None = None
        self._decided = False  # whether there was a tick
        registry = prometheus.CollectorRegistry()
        decisions = prometheus.CollectorRegistry()
        registry.register(WhileDeciding(decisions, self._decides))
        self._job_states = JobStateCollector(states or JobStates(), pending)
        registry.register(self._job_states)

        gauge = partial(prometheus.Gauge, registry=decisions)
        counter = partial(prometheus.Counter, registry=registry)
        self._gauges = {path: gauge(name, text, ["inference_job"]) for name, text, path in GAUGES}
        self._arrivals = gauge(
            "faro_arrivals_per_minute", "requests in the last complete minute", ["inference_job"]
        )
        self._least = gauge(
            "faro_least_replicas", "replicas that must run, if plans are applied", ["inference_job"]
        )
        self._utility = gauge(
            "faro_utility", "relaxed utility of the last complete minute", ["inference_job"]
        )
        self._with_model = gauge(
            "faro_pool_replicas_with_model",
            "replicas of the pool that should hold the job's model",
            ["pool", "inference_job"],
        )
        self._capacity = gauge("faro_capacity_cores", "cores that the jobs may use")
        self._used = gauge("faro_used_cores", "cores of the replicas requested")
        histogram = partial(
            prometheus.Histogram, registry=registry, buckets=[2.0**n for n in range(-10, 5)]
        )
        self._duration = histogram(
            "faro_decision_duration_seconds", "duration of the policy's decision"
        )
        self._ticks = counter("faro_ticks_total", "ticks of the loop")
        self._failures = counter("faro_failures_total", "failures by reason", ["reason"])
        self._refits = counter("faro_refits_total", "refits of the model by outcome", ["outcome"])
        self._decisions = counter(
            "faro_decisions_total", "decisions by reason", ["inference_job", "reason"]
        )
        self._capacity_age = gauge(
            "faro_capacity_age_seconds", "age of the measured capacity; NaN if it is not measured"
        )
        if leads() is not None:
            leader = prometheus.Gauge(
                "faro_leader", "1 if this process is the leader, else 0", registry=registry
            )
            leader.set_function(lambda: float(bool(leads())))
        self._rejected = prometheus.Gauge(
            "faro_settings_rejected",
            "1 while the newest table or order is not in use, because its set-up failed; else 0",
            registry=registry,
        )
        self._offered = gauge(
            "faro_offered_cores", "cores that the requests of the last minute keep busy"
        )
        self._budget = gauge(
            "faro_slo_error_budget_ratio",
            "share of minutes that may miss the SLO",
            ["inference_job"],
        )
        self._sums = {name: counter(name, text, ["inference_job"]) for name, text in SUMS.items()}
        self.use_jobs(jobs)
        try:
            metrics = prometheus.make_wsgi_app(registry)
            self._server = MetricsServer(address, port, partial(self._answer, metrics))
        except OSError as error:
            problem = f"{error.strerror or error}; choose another"
            raise ValueError(f"metrics port {port} on {address}: {problem}") from None
        self._server.start()
        self.port = self._server.server_port

    def _answer(self, metrics: Any, environ: dict, start_response: Callable) -> list[bytes]:
        if environ["PATH_INFO"] not in ("/healthz", "/readyz"):
            return metrics(environ, start_response)
        silent_s = 0.0 if self._progress_s is None else time.monotonic() - self._progress_s
        waits_for = self.waits_for if environ["PATH_INFO"] == "/readyz" else None
        alive = silent_s <= self.progress_deadline_s and not waits_for
        status = "200 OK" if alive else "503 Service Unavailable"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{waits_for or f'{silent_s:.0f} s since the last tick'}\n".encode()]

    def use_jobs(self, jobs: tuple[Job, ...]) -> None:
        """Export the metrics of these jobs from the next tick on."""
        self._jobs, self._scores = jobs, MinuteScores(jobs)
        self._job_states.jobs = tuple(job.name for job in jobs)
        for gauge in (
            *self._gauges.values(),
            self._arrivals,
            self._least,
            self._utility,
            self._budget,
            self._with_model,
        ):
            gauge.clear()
        for job in jobs:
            self._budget.labels(job.name).set(1 - job.quantile)

    def begin(self) -> None:
        """The loop runs from now on, so /healthz expects ticks."""
        self._progress_s = time.monotonic()

    def reject_settings(self, rejected: bool) -> None:
        """Export whether the newest settings are not in use because they were rejected."""
        self._rejected.set(rejected)

    def _decides(self) -> bool:
        return self._decided and self._leads() is not False

    def step(self, step: Step) -> None:
        """Update all metrics with the values of a tick."""
        self._progress_s = time.monotonic()
        self._decided = True
        arrays, latency_s = arrays_of(self._jobs), step.observation.tail_latency_s
        history = step.observation.arrivals_per_min
        seen = live_observation(step.observation)
        plan = live_plan(step.plan)
        live = replace(step, observation=seen, plan=plan)
        columns = {gauge: attrgetter(path)(live) for path, gauge in self._gauges.items()}
        columns[self._arrivals] = history[:, -1] if history.shape[1] else None
        utility = relaxed_utility(np.nan_to_num(latency_s, nan=1.0), arrays.slo_s)
        columns[self._utility] = np.where(np.isnan(latency_s), math.nan, utility)
        for gauge, column in columns.items():
            for n, job in enumerate(self._jobs):
                gauge.labels(job.name).set(math.nan if column is None else float(column[n]))
        # `_least` shows each job's target. If `unbounded` is not None, Faro sets the minReplicas of
        # HPAs, and `_least` shows the planned minReplicas (`floor`). KEEP_FLOOR leaves a job's
        # minReplicas and the gauge unchanged.
        sets_bounds = seen.unbounded is not None
        least = plan.floor if sets_bounds else step.target
        if self._applies and least is not None:
            for job, n in zip(self._jobs, np.minimum(least, step.target).tolist()):
                if n != KEEP_FLOOR:
                    self._least.labels(job.name).set(max(0, n))
        placements = step.plan.placement or step.observation.placement or {}
        for pool in pools_of(self._jobs):
            if pool.shared and pool.name in placements:
                copies = placements[pool.name].resident.sum(axis=0)
                for n, count in zip(pool.jobs, copies.tolist()):
                    self._with_model.labels(pool.name, self._jobs[n].name).set(count)
        self._capacity.set(step.observation.capacity)
        age_s = seen.capacity_age_s
        self._capacity_age.set(math.nan if age_s is None else age_s)
        self._used.set(float(step.target @ arrays.cores))
        self._duration.observe(step.decision_s)
        self._ticks.inc()
        if history.shape[1]:
            factor = 1.0 if plan.service_factor is None else plan.service_factor
            offered_cores = history[:, -1] / MINUTE_S * arrays.busy_s * factor * arrays.cores
            self._offered.set(float(np.nansum(offered_cores)))
        for name, values in self._scores.of_new_minute(step).items():
            for job, value in zip(self._jobs, values):
                self._sums[name].labels(job.name).inc(value)
        for job, reason in zip(self._jobs, step.plan.reason):
            self._decisions.labels(job.name, reason).inc()

    def failure(self, reason: str, _line: str) -> None:
        """Count a failure by its reason; if the loop runs, it also shows that it is not stalled."""
        if self._progress_s is not None:
            self._progress_s = time.monotonic()
        self._failures.labels(reason).inc()

    def refit(self, outcome: str) -> None:
        """Count a refit of the forecaster by its outcome, such as "accepted"."""
        self._refits.labels(outcome).inc()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
