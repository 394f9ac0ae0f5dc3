"""Learn a wrong service time on Ray Serve: does Faro find it, and how soon?

    python -m studies.live.learning                  # three minutes, two of them under load

Three services run on this machine. The table states the right time for two of them; the first takes
1.5 times as long. Faro runs as in `faro run`, without --apply, so that all replicas stay.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.control import Step
from faro_lib.policies import PolicyContext
from faro_lib.simulate import ServingModel, draw
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.cli.model import policy_of
from faro_ops.controller import loop
from faro_ops.controller.clock import Clock
from faro_ops.policies.pacing import paced
from faro_ops.policies.protocol import live_plan
from faro_ops.rayserve.backend import serving
from faro_ops.rayserve.cluster import RayServeCluster
from faro_ops.rayserve.load_generator import Script
from faro_ops.rayserve.spec import serve_specs
from studies.live.generator import Generator

REPLICAS = 3  # of each service
LIMIT = 10  # requests that a replica may hold
LOAD = 0.6  # utilisation of a service whose time is right
TICK_S = 20.0
WRONG = 1.5
START_S = 600.0  # that Ray and its replicas may take on a busy machine


def assumed_jobs() -> tuple[Job, ...]:
    """Three services as the table states them, in seconds of the trace."""
    one = Job("a", slo_s=4.0, quantile=0.9, service_time_s=1.0, service_scv=0.1, model="own")
    return tuple(replace(one, name=name) for name in "abc")


def learned(minutes: int = 12, scale: float = 6.0, seed: int = 1) -> pd.DataFrame:
    """Serve the load; one row per minute and job: job, minute, true, factor, error.

    minutes : length of the load in minutes of the trace.
    scale : trace seconds per wall second.
    """
    jobs = assumed_jobs()
    true = np.array([WRONG, 1.0, 1.0])
    rate_rps = LOAD * REPLICAS / np.array([job.service_time_s for job in jobs]) / true
    counts = np.tile(np.round(rate_rps * MINUTE_S)[:, None], (1, minutes)).astype(int)
    workload = Workload(jobs, counts)
    draws = draw(workload, seed, router=None)
    of_request = np.repeat(np.arange(3), np.diff(draws.first))
    service_s = draws.service_s * true[of_request]
    order = np.argsort(draws.arrival_s, kind="stable")

    latency_model = measure(jobs, serving_model=ServingModel("least-outstanding", LIMIT))
    no_days = Traces(jobs, np.zeros((0, 1, *counts.shape), int), counts[None])
    context = PolicyContext(jobs, forecast.fit("auto", no_days), latency_model)
    policy = paced(policy_of("Faro-Sum", context, learning=True), TICK_S)

    rows: dict[tuple[int, str], dict[str, float | str]] = {}

    def on_step(step: Step) -> None:
        plan, minute = live_plan(step.plan), step.observation.minute
        assert plan.service_factor is not None
        assert plan.service_factor_error is not None
        for n, job in enumerate(jobs):
            rows[minute, job.name] = {
                "minute": minute,
                "job": job.name,
                "true": true[n],
                "factor": plan.service_factor[n],
                "error": plan.service_factor_error[n],
                "tail_latency_s": step.observation.tail_latency_s[n],
            }

    specs = serve_specs(jobs, {job.name: {"max_ongoing_requests": LIMIT} for job in jobs}, scale)
    cores = REPLICAS * len(jobs)
    ray = serving(
        "local",
        jobs,
        specs,
        [REPLICAS] * len(jobs),
        cores,
        start_timeout_s=START_S,
        report=print,
    )
    with ray as endpoint:
        urls = tuple(endpoint.http.address + spec.route for spec in specs)
        script = Script(
            urls, draws.arrival_s[order] / scale, of_request[order], service_s[order] / scale
        )
        clock = Clock.starting_now(scale, in_s=3.0)
        cluster = RayServeCluster(jobs, specs, endpoint.ray, endpoint.http, clock, cores)
        generator = Generator(script, clock.origin_s, max_rps=10 * rate_rps.sum() * scale)
        try:
            with tempfile.TemporaryDirectory() as folder:
                loop.run(
                    cluster,
                    policy,
                    jobs,
                    minutes * MINUTE_S + TICK_S,
                    apply=False,
                    journal=Path(folder) / "run.jsonl",
                    clock=clock,
                    on_step=on_step,
                    on_failure=lambda reason, line: print(reason, line),
                )
        finally:
            generator.stop()
    return pd.DataFrame(list(rows.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=12, help="minutes of load")
    parser.add_argument("--scale", type=float, default=6.0, help="load minutes per minute")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    table = learned(arguments.minutes, arguments.scale, arguments.seed)
    print(table.round(3).to_csv(index=False))


if __name__ == "__main__":
    main()
