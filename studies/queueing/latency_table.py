"""Accuracy of the measured latency table: its utilities against an independent simulation.

    python -m studies.queueing.latency_table [--cases 200]

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
from studies.tables.wording import markdown_table

MINUTE_S = 60.0
LARGEST_REPLICAS = 40
ENOUGH_REQUESTS = 30_000_000
KINDS = ("relaxed", "precise")


@njit
def latencies(arrival_s, service_s, replicas, places):
    """Latencies (requests,) if each request goes to the replica with the fewest requests.

    They are inf if all replicas hold `places` requests.
    """
    # Completions of the last `places` requests of each replica.
    done_s = np.zeros((replicas, places))
    count = np.zeros(replicas, np.int64)
    latency_s = np.empty(len(arrival_s))
    turn = 0
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
    """Mean (relaxed, precise) utility over minutes at a constant arrival rate.

    A minute without requests counts as 1.
    """
    rng = np.random.default_rng(seed)
    warm = 1 + int(50 * job.service_time_s / MINUTE_S)
    total = np.floor(rate_rps * MINUTE_S * np.arange(warm + minutes + 1) + rng.random())
    counts = np.diff(total.astype(int))
    minute = np.repeat(np.arange(len(counts)), counts)
    arrival_s = np.sort(MINUTE_S * (minute + rng.random(counts.sum())))
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
    """Mean utilities and the half-width of their 95 % interval, which is below `width`."""
    minutes = int(np.clip(300_000 / (rate_rps * MINUTE_S), 2, 2000))
    means, requests = [], 0
    while len(means) < 4 or (half(means) > width and requests < ENOUGH_REQUESTS):
        means.append(replication(job, places, rate_rps, replicas, minutes, [7, len(means)]))
        requests += minutes * rate_rps * MINUTE_S
    return np.mean(means, axis=0), half(means)


def half(means):
    return 1.96 * (np.std(means, axis=0, ddof=1) / np.sqrt(len(means))).max()


def case(seed):
    """A random (job, places, rate, replicas): services of 1 ms to 60 s, 5 to 120 % utilisation."""
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
    places = int(rng.choice([2, 4, 10, 20]))
    replicas = int(np.exp(rng.uniform(0, np.log(LARGEST_REPLICAS))))
    return job, places, rng.uniform(0.05, 1.2) * replicas / service_s, replicas


def errors(seed, width):
    """Absolute errors of the table's relaxed and precise utility, and how sure they are."""
    job, places, rate_rps, replicas = case(seed)
    above = next(x for x in COUNTS if x >= replicas)
    around = tuple(x for x in COUNTS if x <= above)[-2:]
    model = ServingModel("least-outstanding", max_ongoing_requests=places)
    table = measure((job,), around, serving_model=model)
    told = [float(table.expected_utility(job, rate_rps, replicas, kind)) for kind in KINDS]
    truth, within = reference(job, places, rate_rps, replicas, width)
    return np.abs(told - truth), within


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    found = [errors(seed, 0.01) for seed in range(parser.parse_args().cases)]
    error = np.array([of_case for of_case, _ in found])  # (cases, KINDS)
    half_width = max(within for _, within in found)
    rows = []
    for kind, one in zip(KINDS, error.T):
        most = np.quantile(one, 0.99)
        rows.append((kind, f"{one.mean():.4f}", f"{most:.3f}", f"{one.max():.3f}"))
    measures = ["mean error", "99 % of the cases", "largest"]
    print(markdown_table(["utility", *measures], rows, right=measures))
    print(f"\nLargest half-width of a 95 % interval of the simulation: {half_width:.3f}")


if __name__ == "__main__":
    main()
