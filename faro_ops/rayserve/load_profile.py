"""Offer open-loop load at increasing rates to a running service, and fit a replica model to the latencies."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from faro_lib.simulate.replicas import SHORTEST_S
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from faro_ops.calibrate import Calibration, Measurements, calibrate, requests_together
from faro_ops.calibrate.measurements import FIRST_TOKEN, LATENCY, PER_TOKEN, TOGETHER
from faro_ops.http import HttpClient
from faro_ops.rayserve.load_generator import MAX_RPS, SERVED, Script, send
from faro_ops.rayserve.profile import Profile, more_replicas
from faro_ops.rayserve.spec import ServeSpec

# Quantity -> the quantiles to measure; None = the mean.
LEVELS = {
    LATENCY: (0.1, 0.5, 0.9, 0.99, None),
    FIRST_TOKEN: (0.5, 0.99),
    PER_TOKEN: (0.5, 0.9),
    TOGETHER: (None,),
}
FIRST_UTILISATION = (
    0.25  # utilisation of the replicas at the first rate, if each serves one request at a time
)
STEP, FAR_STEP = (
    1.3,
    1.7,
)  # multiply the rate by FAR_STEP while the p99 latency is low (see FAR), and otherwise by STEP
FAR = 1.3  # the p99 latency is low if it is below FAR x the lowest p99 latency at any rate so far
STOP = 3.0  # the rate is increased no further once the p99 exceeds STOP x the SLO
TOKENS_PER_PART = 1.2  # each part is a token if the mean numbers of parts and tokens differ by less than this factor
STREAMED = 0.1  # answers count as streamed if at least this share of their latency comes after the first part
MIN_SERVED = 30  # rates with fewer served requests are not used
WARM_UP = (
    0.1  # share of requests left out at the start of each rate, because the queues begin empty
)
# Quantity -> one value in seconds per request; inf if the request was not served.
Samples = dict[str, np.ndarray]  # under the key TOGETHER are the times at which the requests ended
Row = tuple[float, int, Samples]  # (requests/s, replicas, samples)


def climb(
    offer: Callable[[float], Samples], first_rps: float, slo_s: float, max_rps: float
) -> list[float]:
    """Offer increasing rates up to `max_rps`, or until the p99 latency exceeds STOP x `slo_s`. Return the rates."""
    rates, least_p99_s, rate = [], np.inf, min(first_rps, max_rps)
    while rate <= max_rps:
        rates.append(rate)
        p99_s = np.quantile(offer(rate)[LATENCY], 0.99, method="higher")
        if p99_s > STOP * slo_s:
            break
        least_p99_s = min(least_p99_s, p99_s)
        rate *= FAR_STEP if p99_s < FAR * least_p99_s else STEP
    return rates


def to_repeat(rates: list[float]) -> list[float]:
    """Return the second and third highest of `rates`. The highest is left out because it usually causes overload."""
    return rates[-3:-1] or rates


def offer_load(
    url: str, rate_rps: float, seconds: float, rng: np.random.Generator, output_tokens: float = 0.0
) -> tuple[float, Samples]:
    """Offer Poisson load; return (actual requests/s, samples after warm-up).

    output_tokens : mean number of tokens in an answer; 0 = unknown.
    """
    n = max(1, rng.poisson(rate_rps * seconds))
    due_s = np.sort(rng.uniform(0, seconds, n))
    sent = asyncio.run(
        send(Script((url,), due_s, np.zeros(n, int), np.full(n, np.nan)), time.time())
    )
    samples = {LATENCY: sent.latency_s, FIRST_TOKEN: sent.first_s, TOGETHER: due_s + sent.latency_s}
    served = sent.outcome == SERVED
    later = (1 - sent.first_s / sent.latency_s)[served]
    if not len(later) or np.median(later) < STREAMED:
        del samples[FIRST_TOKEN]
    elif 1 / TOKENS_PER_PART < output_tokens / sent.parts[served].mean() < TOKENS_PER_PART:
        samples[PER_TOKEN] = np.maximum(
            (sent.latency_s - sent.first_s) / np.maximum(sent.parts - 1, 1), SHORTEST_S
        )
    return n / seconds, {
        name: np.where(served, one, np.inf)[int(WARM_UP * n) :] for name, one in samples.items()
    }


def measurements_of(rows: Sequence[Row]) -> Measurements:
    """Quantiles and means (LEVELS) of rows with at least MIN_SERVED served requests; ValueError without such rows."""
    everywhere = [
        quantity for quantity in LEVELS if all(quantity in samples for _, _, samples in rows)
    ]
    columns = tuple((quantity, level) for quantity in everywhere for level in LEVELS[quantity])
    table = []
    for rate_rps, replicas, samples in rows:
        served = {
            quantity: samples[quantity][np.isfinite(samples[quantity])] for quantity in everywhere
        }
        if len(served[LATENCY]) >= MIN_SERVED:
            values = []
            for quantity, level in columns:
                mean = requests_together if quantity == TOGETHER else np.mean
                values.append(
                    mean(served[quantity])
                    if level is None
                    else np.quantile(served[quantity], level)
                )
            table.append((rate_rps, replicas, len(samples[LATENCY]), *values))
    if not table:
        raise ValueError(
            f"no rate had {MIN_SERVED} served requests; is the service healthy, and its SLO realistic?"
        )
    rate, counts, requests, *values = np.array(table).T
    return Measurements(rate, counts, requests, columns, np.stack(values, axis=1))


def measure_kind(
    ray: HttpClient,
    http: HttpClient,
    job: Job,
    spec: ServeSpec,
    profile: Profile,
    seconds: float,
    seed: int = 1,
) -> tuple[Measurements, Calibration]:
    """Offer increasing rates, repeat one or two of them with one more replica, and fit a replica model.

    Each rate is offered for at least `seconds`. The service time in `profile` determines the first rate. If the replica
    is `Continuous`, its `max_tokens` and its prompt and output lengths are not fitted, because the job gives them.
    """
    rng, url = np.random.default_rng(seed), http.address + spec.route
    seconds = max(
        seconds, 2 * MIN_SERVED * profile.service_time_s
    )  # slow replicas need more time for enough requests
    known = job.replica.of_tokens if isinstance(job.replica, Continuous) else None
    output_tokens = known["output_tokens"] if known else 0.0
    rows: list[Row] = []

    def offer(replicas: int, rate_per_replica: float) -> Samples:
        rate_rps, samples = offer_load(
            url, rate_per_replica * replicas, seconds, rng, output_tokens
        )
        rows.append((rate_rps, replicas, samples))
        return samples

    with more_replicas(ray, spec, 0) as (replicas, _):
        # The SLO is raised, because an SLO per token may be below the time that a request takes.
        # `max_rps` is per replica. It keeps the load below MAX_RPS with one more replica and with Poisson peaks.
        slo_s, max_rps = max(job.slo_s, 2 * profile.service_time_s), 0.9 * MAX_RPS / (replicas + 1)
        rates = climb(
            partial(offer, replicas), FIRST_UTILISATION / profile.service_time_s, slo_s, max_rps
        )
    with more_replicas(ray, spec, 1) as (replicas, _):
        for rate in to_repeat(rates):
            offer(replicas, rate)
    measurements = measurements_of(rows)
    overhead: Any = 2 * max(profile.network_overhead_s, 0.001)
    limit = spec.max_ongoing_requests
    return measurements, calibrate(
        measurements, max_ongoing_requests=limit, tokens=known, max_overhead_s=overhead
    )
