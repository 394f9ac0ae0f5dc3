"""Replicas that three services share on a real Ray Serve: the live table of docs/sharing.md.

    python benchmarks/sharing_live.py [--binding late] [--stretch 4] [--out FILE]

Starts a Ray on loopback with one pool of eight replicas and its gateway, and sends the same
requests by HTTP once to isolated services (each replica holds the model of its home) and once to
shared replicas (two models each). Only the placement differs, so both take the same path. Each run
is also simulated with its requests. Writes <out>-<binding>.csv, a row per run and service, and
<out>-<binding>-path.csv, what the path costs. `--stretch` makes service times and SLO longer and
rates lower by a factor, so that the same loads cost less CPU and other programs disturb less. It
takes about 15 minutes with `--stretch 1` and 25 with 4.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import psutil

from faro_lib.simulate import Draws, ServingModel
from faro_lib.simulate.cluster import constant_pool_latencies
from faro_lib.simulate.pools import LATE_BINDING
from faro_lib.workload import Job, Placement, pools_of
from faro_lib.workload.pools import chained
from faro_lib.workload.service import RESNET34
from faro_ops.advise.profile.load_generator import FAILED, SERVED, UNSENT, Script, Sent
from faro_ops.http import HttpClient
from faro_ops.operate.rayserve import local
from faro_ops.operate.rayserve.deploy import PLACEMENTS_QUERY, STATS_ROUTE, configuration, deploy
from faro_ops.operate.rayserve.residency import named_rows
from faro_ops.operate.rayserve.spec import BINDINGS, EARLY, POOL_LIMIT, serve_specs
from studies.live.generator import Generator
from studies.live.machine import BackgroundLoad
from studies.pool_routers import EarlyBinding

NAMES = ("a", "b", "c")
HOMES = np.array([4, 2, 2])
RATES_RPS = np.array([17.0, 9.0, 9.0])  # mean of each service at factor 1
SWING, PHASE, CYCLES = 0.7, np.array([0, 1 / 3, 2 / 3]), 2
SLO_S = 0.72
SECONDS = 45.0  # of a run; longer if times are stretched, by the square root
ISOLATED, SHARED = "isolated", "two models"
COMPARED, TRIALS = 1.0, 3  # factor of RATES_RPS at which both are compared; one trial with EARLY
FACTORS = {ISOLATED: (0.7, 0.85), SHARED: (1.15, 1.25)}  # further ones, with one trial
JOBS = tuple(
    Job(name, slo_s=SLO_S, model="resnet34", pool="live", models_per_replica=2, load_s=1.0)
    for name in NAMES
)
POOL = pools_of(JOBS)[0]
PLACEMENTS = {
    ISOLATED: Placement(np.repeat(np.arange(3), HOMES), np.repeat(np.eye(3, dtype=bool), HOMES, 0)),
    SHARED: chained(POOL, HOMES),
}
PATIENCE_S = 120.0
KNOWN_S = 3.0  # Ray tells the gateway within this time what the replicas hold
REPORTED_S = 3.0  # the last second of a run is reported within this time
QUIET_RPS, QUIET_S = 6.0, 40.0  # rate and time at which the costs of the path are measured
LAG_S = 2.0  # until the load generator begins
START_S = 900.0  # time limit for each of two steps: the start of Ray and that of the pool


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of one run; arrays are (requests,), sorted by time."""

    due_s: np.ndarray
    job: np.ndarray
    service_s: np.ndarray

    @classmethod
    def drawn(
        cls, rates_rps: np.ndarray, seconds: float, stretch: float, seed: int, swing: float = SWING
    ) -> Requests:
        """Poisson arrivals whose rates swing around their means at different times.

        rates_rps : mean rates of the services, before they are divided by `stretch`.
        """
        rng = np.random.default_rng(seed)
        times, jobs = [], []
        for job, rate in enumerate(rates_rps / stretch):
            most = rate * (1 + swing)
            candidates = rng.uniform(0, seconds, rng.poisson(most * seconds))
            wave = np.sin(2 * np.pi * (CYCLES * candidates / seconds + PHASE[job]))
            kept = rng.random(len(candidates)) * most < rate * (1 + swing * wave)
            times.append(candidates[kept])
            jobs.append(np.full(kept.sum(), job))
        due_s, of = np.concatenate(times), np.concatenate(jobs)
        order = np.argsort(due_s, kind="stable")
        service_s = rng.standard_normal(len(due_s))
        RESNET34.from_normals(service_s)
        return cls(due_s[order], of[order], stretch * service_s)


@dataclass(frozen=True, slots=True)
class PathCost:
    """What the way through HAProxy, gateway and replica costs, in seconds per request."""

    outside_s: float  # before the gateway has a place for the request, and after the answer
    inside_s: float  # of the replica's time, in addition to the service time
    gateway_cpu_s: float


class Live:
    """The running pool."""

    def __init__(self, http: HttpClient, routes: list[str], pid: int):
        self.http, self.pid = http, pid
        self._urls = tuple(http.address + route for route in routes)

    def place(self, name: str) -> None:
        """Let the replicas hold the models of a placement, and wait until they do."""
        rows = [list(row) for row in named_rows(PLACEMENTS[name], NAMES)]
        self.http.post(f"{STATS_ROUTE}?{PLACEMENTS_QUERY}", {POOL.name: rows})
        wanted, until_s = sorted(map(sorted, rows)), time.monotonic() + PATIENCE_S
        while sorted(one["holds"] for one in self._replicas()) != wanted:
            if time.monotonic() > until_s:
                raise RuntimeError(f"the replicas do not hold {wanted}")
            time.sleep(0.5)
        time.sleep(KNOWN_S)

    def _replicas(self) -> list[dict]:
        answer = self.http.get(f"{STATS_ROUTE}?{PLACEMENTS_QUERY}")
        return list(answer[POOL.name]["replicas"].values())

    def send(self, requests: Requests) -> Sent:
        script = Script(self._urls, requests.due_s, requests.job, requests.service_s)
        generator = Generator(script, time.time() + LAG_S)
        try:
            return generator.result(requests.due_s.max() + PATIENCE_S)
        finally:
            generator.stop()

    def gateway_cpu_s(self) -> float:
        """CPU seconds that the gateway has used."""
        spent = 0.0
        for one in local.processes(self.pid):
            if "pool-live:gateway" in " ".join(one.cmdline()):
                times = one.cpu_times()
                spent += times.user + times.system
        return spent

    def path(self, stretch: float) -> PathCost:
        """Measure what the path costs at a low rate, at which hardly any request waits."""
        rates_rps = QUIET_RPS * RATES_RPS / RATES_RPS.sum()
        requests = Requests.drawn(rates_rps, QUIET_S, stretch**0.5, 99, 0.0)
        before_s, began = self.gateway_cpu_s(), int(time.time())
        sent = self.send(requests)
        time.sleep(REPORTED_S)
        counted = self.http.get(f"{STATS_ROUTE}?since={began}")
        rows = [row for name in NAMES for row in counted[name]["seconds"].values()]
        done = sum(row["done"] for row in rows)
        inside_s = sum(row["service_s"] for row in rows) / done - requests.service_s.mean()
        served = sent.outcome == SERVED
        beyond_s = np.median((sent.latency_s - requests.service_s)[served])
        cpu_s = (self.gateway_cpu_s() - before_s) / len(requests.due_s)
        return PathCost(max(0.0, float(beyond_s) - inside_s), inside_s, cpu_s)


@contextmanager
def live(binding: str, stretch: float) -> Iterator[Live]:
    """A context with the running pool."""
    jobs = tuple(replace(job, slo_s=SLO_S * stretch) for job in JOBS)
    specs = serve_specs(jobs, {name: {"binding": binding} for name in NAMES})
    with local.start(int(HOMES.sum()), START_S) as ray:
        port = urlsplit(ray.http.address).port or 0
        applications = configuration(jobs, specs, HOMES)
        deploy(ray.rest, applications, (local.HTTP_HOST, port), print, timeout_s=START_S)
        yield Live(ray.http, [spec.route for spec in specs], ray.process.pid)


def twin(requests: Requests, placement: Placement, path: PathCost, binding: str) -> np.ndarray:
    """Latency of each request in the simulator, with the measured costs of the path."""
    order = np.argsort(requests.job, kind="stable")  # the simulator has one job after the other
    n = len(order)
    first = np.searchsorted(requests.job[order], np.arange(4))
    service_s = requests.service_s[order] + path.inside_s
    none = np.empty(0)
    draws = Draws(first, requests.due_s[order], none, service_s, none, np.ones(n, np.float32), 0)
    router = EarlyBinding(counts_age_s=0.0) if binding == EARLY else LATE_BINDING
    model = ServingModel("least-outstanding", POOL_LIMIT, pool_router=router)
    latency_s = np.empty(n)
    latency_s[order] = constant_pool_latencies(JOBS, draws, placement, model) + path.outside_s
    return latency_s


def measures(
    requests: Requests, latency_s: np.ndarray, job: int, slo_s: float
) -> tuple[float, float, float]:
    """(p99 latency in s, violations in %, requests/s) of one service; inf is a violation."""
    of_job = requests.job == job
    due_s, spent_s = requests.due_s[of_job], latency_s[of_job]
    lasted_s = (due_s + spent_s)[np.isfinite(spent_s)].max() - due_s.min()
    late = 100 * float((spent_s > slo_s).mean())
    return float(np.quantile(spent_s, 0.99)), late, len(due_s) / lasted_s


def rows_of_run(
    live: Live, name: str, requests: Requests, path: PathCost, binding: str, slo_s: float
) -> list[dict]:
    """One run, live and simulated: a row per service."""
    live.place(name)
    cpu_s = live.gateway_cpu_s()
    with BackgroundLoad([live.pid]) as others:
        sent = live.send(requests)
    cpu_s = (live.gateway_cpu_s() - cpu_s) / len(requests.due_s)
    latency_s = np.where(sent.outcome == SERVED, sent.latency_s, np.inf)
    simulated_s = twin(requests, PLACEMENTS[name], path, binding)
    rows = []
    for job, service in enumerate(NAMES):
        row: dict = {"service": service, "requests": int((requests.job == job).sum())}
        for where, of_run in (("live", latency_s), ("twin", simulated_s)):
            p99_s, late, rps = measures(requests, of_run, job, slo_s)
            row |= {f"{where}_p99_s": p99_s, f"{where}_late_pct": late, f"{where}_rps": rps}
        row |= {
            "failed": int(np.isin(sent.outcome[requests.job == job], (FAILED, UNSENT)).sum()),
            "gateway_cpu_ms": 1e3 * cpu_s,
            "other_cpus": others.processors,
        }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binding", choices=BINDINGS, default="late")
    parser.add_argument("--stretch", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path("data/recorded-sharing/live"))
    arguments = parser.parse_args()
    binding, stretch, out = arguments.binding, arguments.stretch, arguments.out
    seconds, slo_s = SECONDS * stretch**0.5, SLO_S * stretch
    trials = 1 if binding == EARLY else TRIALS
    runs = [(COMPARED, trial, name) for trial in range(trials) for name in PLACEMENTS]
    if binding != EARLY:
        runs += [(factor, 0, name) for name, factors in FACTORS.items() for factor in factors]
    rows: list[dict] = []
    with live(binding, stretch) as pool:
        pool.place(SHARED)
        pool.path(stretch)  # the first requests are slower
        path = pool.path(stretch)
        print(path, flush=True)
        for factor, trial, name in runs:
            requests = Requests.drawn(factor * RATES_RPS, seconds, stretch, trial)
            about = {"stretch": stretch, "placement": name, "factor": factor, "trial": trial}
            for row in rows_of_run(pool, name, requests, path, binding, slo_s):
                rows.append(about | row)
                print(*rows[-1].values(), flush=True)
            pd.DataFrame(rows).round(5).to_csv(f"{out}-{binding}.partial.csv", index=False)
    Path(f"{out}-{binding}.partial.csv").replace(f"{out}-{binding}.csv")
    about_path = {
        "outside_ms": 1e3 * path.outside_s,
        "inside_ms": 1e3 * path.inside_s,
        "gateway_cpu_ms": 1e3 * path.gateway_cpu_s,
        "processors": psutil.cpu_count(),
    }
    pd.DataFrame([about_path]).round(3).to_csv(f"{out}-{binding}-path.csv", index=False)


if __name__ == "__main__":
    main()
