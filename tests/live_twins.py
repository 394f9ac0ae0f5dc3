"""Emulated services that batch and that generate tokens on a real Ray Serve, and their simulated twins.

    python tests/live_twins.py --trials 3

prints the p99 latency and the throughput of each beside those of the twin, at 50, 70 and 85 % of the capacity.
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np

from faro_lib.rayserve import local
from faro_lib.rayserve.deploy import configuration, deploy
from faro_lib.rayserve.load_generator import SERVED, Script
from faro_lib.rayserve.spec import serve_specs
from faro_lib.simulate import Draws, ServingModel, SimulatedCluster
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import Batched, Continuous
from notebooks.live.generator import Generator

BATCHES = Job("images", slo_s=1.0, model="images", replica=Batched(8, 0.05, 0.15, 0.02))
TOKENS = Job("chat", slo_s=2.0, model="chat", replica=Continuous(0.03, 0.001, 1e-5, 8, 20.0, 100.0, 0.5, 0.5))
JOBS = (BATCHES, TOKENS)
SECONDS, TWINS = 40, 200
LIMIT = 500  # requests in a replica, so that none is dropped


@contextmanager
def served():
    """A context with a function (rate of each job, seed) -> (arrival times, latencies) of each job, on one replica each."""
    specs = serve_specs(JOBS, {job.name: {"max_ongoing_requests": LIMIT} for job in JOBS})
    with local.start(2) as running:
        deploy(running.rest, configuration(JOBS, specs, [1, 1]), (local.HTTP_HOST, urlsplit(running.http).port))

        def offer(rates, seed=3, seconds=SECONDS):
            rng = np.random.default_rng(seed)
            due = [np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds))) for rate in rates]
            times, job = np.concatenate(due), np.repeat(np.arange(len(due)), [len(one) for one in due])
            order = np.argsort(times, kind="stable")
            urls = tuple(running.http + spec.route for spec in specs)
            script = Script(urls, times[order], job[order], np.full(len(times), np.nan))
            sent = Generator(script, time.time() + 2).result(timeout_s=seconds + 60)
            assert (sent.outcome == SERVED).all()
            return [(script.due_s[script.job == n], sent.latency_s[script.job == n]) for n in range(len(due))]

        offer([5.0, 5.0], seconds=3)  # the first requests of a replica are slower
        yield offer


def measures(arrival_s, latency_s):
    """(p99 latency in s, requests/s from the first arrival to the last answer)."""
    return np.quantile(latency_s, 0.99), len(latency_s) / ((arrival_s + latency_s).max() - arrival_s[0])


def twin(job, rate_rps, seed):
    """The measures of a simulated run of the same length, with arrivals and lengths of its own."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(rate_rps * SECONDS)
    lengths = job.replica.lengths(rng, n) if job is TOKENS else np.ones((2, n))
    arrival_s = np.sort(rng.uniform(0, SECONDS, n))
    columns = arrival_s, np.empty(0), np.ones(n), np.empty(0), np.ones(n, np.float32)
    draws = Draws(np.array([0, n]), *columns, seed, *lengths)
    model = ServingModel("least-outstanding", max_ongoing_requests=LIMIT)
    cluster = SimulatedCluster(Workload((job,), np.array([[n]])), draws, 1, np.ones(1), model)
    cluster.finish()
    return measures(arrival_s, cluster.latency_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3)
    trials = parser.parse_args().trials
    print("| service | load | live p99 (s) | twin p99 (s), 95 % of runs | live / offered requests |")
    print("| --- | ---: | --- | --- | --- |")
    with served() as offer:
        for share in (0.5, 0.7, 0.85):
            rates = [share / job.busy_s for job in JOBS]
            runs = [offer(rates, seed) for seed in range(3, 3 + trials)]
            for n, job in enumerate(JOBS):
                low, median, high = np.quantile([twin(job, rates[n], k)[0] for k in range(TWINS)], [0.025, 0.5, 0.975])
                p99_s, served_rps = np.array([measures(*run[n]) for run in runs]).T
                offered = np.array([len(run[n][0]) / SECONDS for run in runs])
                live = ", ".join(f"{value:.2f}" for value in p99_s)
                ratio = ", ".join(f"{value:.2f}" for value in served_rps / offered)
                print(
                    f"| {job.name} | {share:.0%} | {live} | {median:.2f} ({low:.2f} to {high:.2f}) | {ratio} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
