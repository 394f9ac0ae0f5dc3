"""Accuracy of the measured latency table: its utilities against an independent simulation of 200
random cases.

    python benchmarks/latency_table.py [--cases 200]

Service times of 1 ms to 60 s, 1 to 40 replicas, 5 to 120 % utilisation, random variability, SLO,
quantile and limit of ongoing requests. A case is simulated until the 95 % interval of its utility
is narrower than 0.02. Takes half an hour.
"""

from __future__ import annotations

import argparse

import numpy as np
from numba import njit

from faro_lib.simulate import ServingModel
from faro_lib.simulate.measure import COUNTS, measure
from faro_lib.workload import Job

MINUTE_S = 60.0
LARGEST_REPLICAS = 40
ENOUGH_REQUESTS = 30_000_000


@njit
def latencies(arrival_s, service_s, replicas, places):
    """Latencies (requests,) if each request goes to the replica with the fewest; inf if all hold
    `places` requests.
    """
    done_s = np.zeros(
        (replicas, places)
    )  # completions of the last `places` requests of each replica
    count = np.zeros(replicas, np.int64)
    latency_s, turn = np.empty(len(arrival_s)), 0
    for n, now in enumerate(arrival_s):
        best, fewest = -1, places
        for step in range(replicas):
            r = (turn + step) % replicas
            ongoing = (done_s[r] > now).sum()
            if ongoing < fewest:
                best, fewest = r, ongoing
                if ongoing == 0:
                    break
        if best < 0:
            latency_s[n] = np.inf
            continue
        turn = (best + 1) % replicas
        newest = count[best] % places
        completes = max(now, done_s[best].max()) + service_s[n]
        done_s[best, newest] = completes
        count[best] += 1
        latency_s[n] = completes - now
    return latency_s


def replication(job, places, rate_rps, replicas, minutes, seed):
    """Mean (relaxed, precise) utility over minutes at a constant arrival rate; a minute without
    requests counts as 1.
    """
    rng = np.random.default_rng(seed)
    warm = 1 + int(50 * job.service_time_s / MINUTE_S)
    counts = np.diff(
        np.floor(rate_rps * MINUTE_S * np.arange(warm + minutes + 1) + rng.random()).astype(int)
    )
    arrival_s = np.sort(
        MINUTE_S * (np.repeat(np.arange(len(counts)), counts) + rng.random(counts.sum()))
    )
    shape = np.sqrt(np.log1p(job.service_scv))
    service_s = job.service_time_s * rng.lognormal(-(shape**2) / 2, shape, len(arrival_s))
    latency_s = latencies(arrival_s, service_s, replicas, places)
    utility = []
    for m in range(warm, warm + minutes):
        a, b = np.searchsorted(arrival_s, [m * MINUTE_S, (m + 1) * MINUTE_S])
        if a == b:
            utility.append((1.0, 1.0))
            continue
        with np.errstate(invalid="ignore"):
            late = np.quantile(latency_s[a:b], job.quantile)
        late = np.inf if np.isnan(late) else late
        utility.append((min(1.0, job.slo_s / late), float(late <= job.slo_s)))
    return np.mean(utility, axis=0)


def reference(job, places, rate_rps, replicas, width):
    """Mean utilities and the half-width of their 95 % interval, from replications until it is below
    `width`.
    """
    minutes = int(np.clip(300_000 / (rate_rps * MINUTE_S), 2, 2000))
    means, requests = [], 0
    while len(means) < 4 or (half(means) > width and requests < ENOUGH_REQUESTS):
        means.append(replication(job, places, rate_rps, replicas, minutes, [7, len(means)]))
        requests += minutes * rate_rps * MINUTE_S
    return np.mean(means, axis=0), half(means)


def half(means):
    return 1.96 * (np.std(means, axis=0, ddof=1) / np.sqrt(len(means))).max()


def case(seed):
    """A random (job, places, rate, replicas): service times of 1 ms to 60 s, 5 to 120 %
    utilisation.
    """
    rng = np.random.default_rng([11, seed])
    service_s = float(10 ** rng.uniform(-3, np.log10(60)))
    job = Job(
        "a",
        model="any",
        service_time_s=service_s,
        service_scv=float(rng.choice([0, 0.1, 0.5, 1, 2])),
        slo_s=service_s * float(10 ** rng.uniform(0.1, 1.3)),
        quantile=float(rng.choice([0.5, 0.9, 0.95, 0.99])),
    )
    places, replicas = (
        int(rng.choice([2, 4, 10, 20])),
        int(np.exp(rng.uniform(0, np.log(LARGEST_REPLICAS)))),
    )
    return job, places, rng.uniform(0.05, 1.2) * replicas / service_s, replicas


def errors(seed, width):
    """Absolute errors of the table's relaxed and precise utility."""
    job, places, rate_rps, replicas = case(seed)
    above = next(x for x in COUNTS if x >= replicas)
    around = tuple(x for x in COUNTS if x <= above)[-2:]
    model = ServingModel("least-outstanding", max_ongoing_requests=places)
    table = measure((job,), around, serving_model=model)
    told = [
        float(table.expected_utility(job, rate_rps, replicas, kind))
        for kind in ("relaxed", "precise")
    ]
    truth, within = reference(job, places, rate_rps, replicas, width)
    return (
        np.abs(told - truth),
        within,
        (job, places, rate_rps * job.service_time_s / replicas, replicas, told, truth),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    found = [errors(seed, 0.01) for seed in range(parser.parse_args().cases)]
    error, half_width = np.array([one[0] for one in found]), np.array([one[1] for one in found])
    print("| utility | mean error | 99 % of the cases | largest |\n| --- | ---: | ---: | ---: |")
    for kind, of_kind in zip(("relaxed", "precise"), error.T):
        print(
            f"| {kind} | {of_kind.mean():.4f} | {np.quantile(of_kind, 0.99):.3f} | "
            f"{of_kind.max():.3f} |"
        )
    print(f"\nLargest half-width of a 95 % interval of the simulation: {half_width.max():.3f}")


if __name__ == "__main__":
    main()
