"""Offer load at increasing rates to a running service, and fit a replica model to the latencies.

The load is open-loop.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from faro_lib.simulate.replicas import SHORTEST_S
from faro_lib.workload import Job
from faro_ops.advise.calibrate import (
    Calibration,
    Measurements,
    calibrate,
    requests_together,
    tokens_of,
)
from faro_ops.advise.calibrate.measurements import FIRST_TOKEN, LATENCY, PER_TOKEN, TOGETHER
from faro_ops.advise.profile.load_generator import MAX_RPS, SERVED, Script, send
from faro_ops.advise.profile.profile import Profile, RunningService

# Quantity -> the quantiles to measure; None = the mean.
LEVELS = {
    LATENCY: (0.1, 0.5, 0.9, 0.99, None),
    FIRST_TOKEN: (0.5, 0.99),
    PER_TOKEN: (0.5, 0.9),
    TOGETHER: (None,),
}
# Utilisation of the replicas at the first rate, if each serves one request at a time.
FIRST_UTILISATION = 0.25
# The rate is multiplied by FAR_STEP while the p99 latency is low, and otherwise by STEP. It is low
# if it is below FAR x the lowest p99 latency at any rate so far.
STEP, FAR_STEP, FAR = 1.3, 1.7, 1.3
STOP = 3.0  # the rate is increased no further once the p99 latency exceeds STOP x the SLO
# Each part is a token if the mean numbers of parts and tokens differ by less than this factor.
TOKENS_PER_PART = 1.2
# Answers count as streamed if at least this share of their latency comes after the first part.
STREAMED = 0.1
MIN_SERVED = 30  # rates with fewer served requests are not used
# Requests that are expected at each rate. After the warm-up, fewer than MIN_SERVED are left of them
# at one rate in ten thousand, because arrivals are random.
ENOUGH = 2 * MIN_SERVED
# This share of the requests is left out at the start of each rate, because the queues begin empty.
WARM_UP = 0.1
# Quantity -> one value in seconds per request; inf if the request was not served. Under the key
# TOGETHER are the times at which the requests ended.
Samples = dict[str, np.ndarray]
Row = tuple[float, int, Samples]  # (requests/s, replicas, samples)


def climb(
    offer: Callable[[float], Samples], first_rps: float, slo_s: float, max_rps: float
) -> list[float]:
    """Offer increasing rates up to `max_rps`, and return them.

    The first rate whose p99 latency exceeds STOP x `slo_s` is the last.
    """
    rates = []
    least_p99_s = np.inf
    rate = min(first_rps, max_rps)
    while rate <= max_rps:
        rates.append(rate)
        p99_s = np.quantile(offer(rate)[LATENCY], 0.99, method="higher")
        if p99_s > STOP * slo_s:
            break
        least_p99_s = min(least_p99_s, p99_s)
        rate *= FAR_STEP if p99_s < FAR * least_p99_s else STEP
    return rates


def to_repeat(rates: list[float]) -> list[float]:
    """Return the second and third highest of `rates`, because the highest usually overloads."""
    return rates[-3:-1] or rates


def offer_load(
    url: str, rate_rps: float, seconds: float, rng: np.random.Generator, output_tokens: float = 0.0
) -> tuple[float, Samples]:
    """Offer Poisson load; return (actual requests/s, samples after warm-up).

    output_tokens : mean number of tokens in an answer; 0 = unknown.
    """
    n = max(1, rng.poisson(rate_rps * seconds))
    due_s = np.sort(rng.uniform(0, seconds, n))
    script = Script((url,), due_s, np.zeros(n, int), np.full(n, np.nan))
    sent = asyncio.run(send(script, time.time()))
    samples = {LATENCY: sent.latency_s, TOGETHER: due_s + sent.latency_s}
    served = sent.outcome == SERVED
    after_first = (1 - sent.first_s / sent.latency_s)[served]  # as a share of the latency
    if len(after_first) and np.median(after_first) >= STREAMED:
        samples[FIRST_TOKEN] = sent.first_s
        if 1 / TOKENS_PER_PART < output_tokens / sent.parts[served].mean() < TOKENS_PER_PART:
            per_token_s = (sent.latency_s - sent.first_s) / np.maximum(sent.parts - 1, 1)
            samples[PER_TOKEN] = np.maximum(per_token_s, SHORTEST_S)
    warm_up = int(WARM_UP * n)
    samples = {name: np.where(served, one, np.inf)[warm_up:] for name, one in samples.items()}
    return n / seconds, samples


def measurements_of(rows: Sequence[Row]) -> Measurements:
    """Quantiles and means (LEVELS) of the rows with at least MIN_SERVED served requests.

    Raises ValueError if there is no such row.
    """
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
            values = [_measured(served[quantity], quantity, level) for quantity, level in columns]
            table.append((rate_rps, replicas, len(samples[LATENCY]), *values))
    if not table:
        problem = f"no rate had {MIN_SERVED} served requests"
        raise ValueError(f"{problem}; is the service healthy, and its SLO realistic?")
    rate, counts, requests, *values = np.array(table).T  # each of shape (rows,)
    return Measurements(rate, counts, requests, columns, np.stack(values, axis=1))


def _measured(sample: np.ndarray, quantity: str, level: float | None) -> float:
    """The quantile of a sample at `level`, or its mean if `level` is None."""
    if level is not None:
        return float(np.quantile(sample, level))
    return float(requests_together(sample) if quantity == TOGETHER else sample.mean())


def measure_kind(
    service: RunningService,
    job: Job,
    profile: Profile,
    seconds: float,
    seed: int = 1,
    more: int = 1,
) -> tuple[Measurements, Calibration]:
    """Offer increasing rates, and one or two of them with more replicas; fit a replica model.

    Each rate is offered for at least `seconds`, and for as long as ENOUGH requests take. The
    service time in `profile` determines the first rate. If the replica is `Continuous`, its
    `max_tokens` and its prompt and output lengths are not fitted, because the job gives them.

    more : replicas to add; 0 where replicas slow each other down, which no model here has.
    """
    rng = np.random.default_rng(seed)
    # At high rates, the queues of slow replicas need this time.
    seconds = max(seconds, ENOUGH * profile.service_time_s)
    tokens = tokens_of(job.replica)
    output_tokens = tokens["output_tokens"] if tokens else 0.0
    rows: list[Row] = []

    def offer(replicas: int, rate_per_replica: float) -> Samples:
        offered_rps = rate_per_replica * replicas
        rate_rps, samples = offer_load(
            service.url, offered_rps, max(seconds, ENOUGH / offered_rps), rng, output_tokens
        )
        rows.append((rate_rps, replicas, samples))
        return samples

    first_rps = FIRST_UTILISATION / profile.service_time_s
    # The SLO is raised, because an SLO per token may be below the time that a request takes.
    slo_s = max(job.slo_s, 2 * profile.service_time_s)
    with service.more_replicas(0) as (replicas, _):
        # Per replica; it keeps the load below MAX_RPS with more replicas and with Poisson peaks.
        max_rps = 0.9 * MAX_RPS / (replicas + more)
        rates = climb(partial(offer, replicas), first_rps, slo_s, max_rps)
    if more:
        with service.more_replicas(more) as (replicas, _):
            for rate in to_repeat(rates):
                offer(replicas, rate)
    measurements = measurements_of(rows)
    calibration = calibrate(
        measurements,
        max_ongoing_requests=service.max_ongoing_requests,
        tokens=tokens,
        max_overhead_s=2 * max(profile.network_overhead_s, 0.001),
    )
    return measurements, calibration
