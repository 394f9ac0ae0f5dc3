"""Emulated services that batch and that generate tokens on Ray Serve, and their simulated twins.

    python tests/support/live_twins.py --trials 3

writes the p99 latency and the throughput of each, and those of the twin, at 50, 70 and 85 % of the
capacity to data/live-twins.csv. A twin gets the arrivals and the token lengths of the live run, so
both serve the same requests. `python docs/twins.py` makes the table and the figure of
docs/replicas.md from that file.
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from faro_lib.simulate import Draws, ServingModel, SimulatedCluster
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import Batched, Continuous, mapping_of
from faro_ops.advise.profile.load_generator import SERVED, Script
from faro_ops.operate.rayserve import local
from faro_ops.operate.rayserve.deploy import configuration, deploy
from faro_ops.operate.rayserve.spec import EMULATED_KINDS, serve_specs
from studies.live.generator import Generator

BATCHES = Job("images", slo_s=1.0, model="images", replica=Batched(8, 0.05, 0.15, 0.02))
GENERATING = Continuous(0.03, 0.001, 1e-5, 8, 20.0, 100.0, 0.5, 0.5)
TOKENS = Job("chat", slo_s=2.0, model="chat", replica=GENERATING)
# 143 requests/s.
FAST = Job("thumbnails", slo_s=0.5, model="thumbnails", replica=Batched(16, 0.02, 0.08, 0.002))
JOBS = (BATCHES, TOKENS, FAST)
RECORDED = Path(__file__).parents[2] / "data/live-twins.csv"
SECONDS = 40
SEED = 11  # of the token lengths
LIMIT = 500  # requests in a replica, so that none is dropped


@contextmanager
def served():
    """A context with a function that serves requests at given rates (one per job).

    It returns (arrival times, latencies, lengths) of each job's requests. Each job has one replica.
    The model of TOKENS draws a request's lengths when it arrives, and `lengths` draws the same.
    """
    tokens = {
        "import_path": EMULATED_KINDS["continuous"],
        "args": {"replica": mapping_of(TOKENS.replica), "seed": SEED},
    }
    sections = {
        job.name: {"max_ongoing_requests": LIMIT} | (tokens if job is TOKENS else {})
        for job in JOBS
    }
    specs = serve_specs(JOBS, sections)
    rng_of_lengths = np.random.default_rng(SEED)

    def lengths(job, n):
        if job is not TOKENS:
            return np.ones((2, n))
        drawn = [TOKENS.replica.lengths(rng_of_lengths, 1) for _ in range(n)]
        return np.concatenate([np.empty((2, 0)), *drawn], axis=1)

    with local.start(len(JOBS)) as running:
        at = (local.HTTP_HOST, urlsplit(running.http.address).port)
        deploy(running.rest, configuration(JOBS, specs, [1] * len(JOBS)), at)

        def offer(rates, seed=3, seconds=SECONDS):
            rng = np.random.default_rng(seed)
            due = [np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds))) for rate in rates]
            times = np.concatenate(due)
            job = np.repeat(np.arange(len(due)), [len(one) for one in due])
            order = np.argsort(times, kind="stable")
            urls = tuple(running.http.address + spec.route for spec in specs)
            script = Script(urls, times[order], job[order], np.full(len(times), np.nan))
            sent = Generator(script, time.time() + 2).result(timeout_s=seconds + 60)
            assert (sent.outcome == SERVED).all()
            outcomes = []
            for n, one in enumerate(JOBS):
                at = script.job == n
                outcomes.append((script.due_s[at], sent.latency_s[at], lengths(one, at.sum())))
            return outcomes

        offer([5.0] * len(JOBS), seconds=3)  # the first requests of a replica are slower
        yield offer


def measures(arrival_s, latency_s):
    """(p99 latency in s, requests/s from the first arrival to the last answer)."""
    lasted_s = (arrival_s + latency_s).max() - arrival_s[0]
    return np.quantile(latency_s, 0.99), len(latency_s) / lasted_s


def twin(job, arrival_s, lengths):
    """The measures of a simulated run with these requests."""
    n = len(arrival_s)
    columns = arrival_s, np.empty(0), np.ones(n), np.empty(0), np.ones(n, np.float32)
    draws = Draws(np.array([0, n]), *columns, SEED, *lengths)
    model = ServingModel("least-outstanding", max_ongoing_requests=LIMIT)
    cluster = SimulatedCluster(Workload((job,), np.array([[n]])), draws, 1, np.ones(1), model)
    cluster.finish()
    return measures(arrival_s, cluster.latency_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3)
    trials = parser.parse_args().trials
    rows = []
    with served() as offer:
        for share in (0.5, 0.7, 0.85):
            rates = [share / job.busy_s for job in JOBS]
            for trial in range(trials):
                for job, rate, requests in zip(JOBS, rates, offer(rates, seed=3 + trial)):
                    arrival_s, latency_s, lengths = requests
                    live = measures(arrival_s, latency_s)
                    simulated = twin(job, arrival_s, lengths)
                    rows.append([job.name, share, rate, trial, *live, *simulated])
                    print(*rows[-1], flush=True)
    columns = ["service", "load", "requests_per_s", "trial"]
    columns += ["live_p99_s", "live_rps", "twin_p99_s", "twin_rps"]
    pd.DataFrame(rows, columns=columns).round(5).to_csv(RECORDED, index=False)


if __name__ == "__main__":
    main()
