"""Simulate the measured values of a service, such as latency quantiles, and estimate their sampling errors."""

from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.simulate.cluster import ServingModel
from faro_lib.simulate.draws import Draws
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from faro_lib.workload.service import ServiceTime, true_service_time
from faro_ops.calibrate.measurements import (
    FIRST_TOKEN,
    LATENCY,
    TOGETHER,
    Measurements,
    requests_together,
)
from faro_ops.calibrate.priors import CalibratedService

ERROR_RUNS = 32  # simulated repetitions of each measured period to estimate its sampling errors
MAX_RUNS = 8  # maximum number of repetitions over which `Simulator.values` averages
MAX_RUN = 2000  # maximum requests per repetition; the error variance of a longer period is scaled down in proportion
WARM_UP = 0.1  # share of a repetition's requests that are discarded at its start, because queues begin empty
MIN_WARM_UP = 50
NEVER_S = 1e6  # stands for the latency of a period in which nothing is served
FLOOR = 0.005  # smallest relative error of a measured value


class Simulator:
    """Simulates the measured periods for a service, always with the same random numbers.

    requests : number to simulate for each row, in one or more repetitions; places : max_ongoing_requests of a replica.
    """

    def __init__(
        self,
        measurements: Measurements,
        dispatch: str,
        places: int,
        tokens: dict[str, Any],
        requests: int,
        seed: int,
    ):
        self._measurements, self._seed = measurements, seed
        self._tokens, self._places, self._model = tokens, places, ServingModel(dispatch)
        self._length = np.minimum(measurements.requests, MAX_RUN)
        self._runs = int(np.clip(requests // self._length.max(), 1, MAX_RUNS))
        self._draws = self._draw(self._runs)

    def values(self, service: CalibratedService) -> np.ndarray:
        """Mean over repetitions of the logarithms of the simulated values, shape (rows, columns).

        Slow requests cluster near saturation. A quantile over a short period is then on average far below the long-run
        quantile. Therefore a repetition has as many requests as a measured period, up to MAX_RUN.
        """
        return self._repeated(service, self._draws, self._runs).mean(axis=0)

    def errors(self, service: CalibratedService) -> np.ndarray:
        """Covariance of the sampling errors of the values' logarithms, shape (rows, columns, columns).

        It is the sum of two covariances, because both the measured and the simulated values have sampling errors. The
        divisor in `covariance` makes the inverse of the matrix unbiased (Hartlap, Simon and Schneider, 2007).
        """
        values = self._repeated(service, self._draw(ERROR_RUNS), ERROR_RUNS)
        apart = values - values.mean(axis=0)
        covariance = np.einsum("nri,nrj->rij", apart, apart) / (ERROR_RUNS - 2 - values.shape[2])
        factor = (
            self._length / (self._measurements.requests * self._measurements.periods)
            + 1 / self._runs
        )
        return covariance * factor[:, None, None] + FLOOR**2 * np.eye(values.shape[2])

    def _repeated(self, service: CalibratedService, draws: Draws, runs: int) -> np.ndarray:
        """Logarithms of the simulated measurements, shape (runs, rows, columns)."""
        length, m = self._length.max(), np.repeat(self._length, runs)
        rows, values = np.arange(len(m)), []
        samples = {
            quantity: np.where(np.arange(length) < m[:, None], sample[:, -length:], np.inf)
            for quantity, sample in self._run(service, draws, runs).items()
        }
        ordered = {quantity: np.sort(sample, axis=1) for quantity, sample in samples.items()}
        for quantity, level in self._measurements.columns:
            if quantity == TOGETHER:
                values.append(
                    requests_together(
                        draws.arrival_s.reshape(len(m), -1)[:, -length:] + samples[LATENCY]
                    )
                )
                continue
            sample = ordered[quantity]
            served = np.maximum(np.isfinite(sample).sum(axis=1), 1)
            if level is None:
                served_s = np.where(np.isfinite(sample), sample, 0.0).sum(axis=1)
                values.append(np.where(np.isfinite(sample).any(axis=1), served_s / served, NEVER_S))
                continue
            position = level * (served - 1)
            low = position.astype(int)
            high = np.minimum(low + 1, served - 1)
            below, above = np.minimum(sample[rows, [low, high]], NEVER_S)
            values.append(below + (position - low) * (above - below))
        return (
            np.log(np.maximum(np.stack(values, axis=1), 1 / NEVER_S))
            .reshape(-1, runs, len(values))
            .swapaxes(0, 1)
        )

    def _draw(self, runs: int) -> Draws:
        """Draw random numbers for all repetitions. Service times are standard normals until `_run` transforms them."""
        rates, length = np.repeat(self._measurements.rate_rps, runs), int(self._length.max())
        requests = length + max(MIN_WARM_UP, int(length * WARM_UP / (1 - WARM_UP)))
        rng, n = np.random.default_rng(self._seed), len(rates) * requests
        gaps = rng.standard_exponential((len(rates), requests + 1))
        # Scaling the gaps gives sorted uniform arrival times. Each repetition then has exactly the measured rate.
        arrival_s = (
            np.cumsum(gaps, axis=1)[:, :-1]
            / gaps.sum(axis=1, keepdims=True)
            * (requests / rates)[:, None]
        )
        normals, lengths = rng.standard_normal(n), rng.standard_normal((2, n))
        passes = rng.standard_normal((2, n if self._model.router else 0))
        if self._model.router:
            self._model.router.from_normals(passes)
        for row, name in zip(lengths, ("prompt", "output")):
            moments = self._tokens.get(f"{name}_tokens", 1.0), self._tokens.get(f"{name}_cv", 0.0)
            ServiceTime.from_moments(moments[0], moments[1] ** 2).from_normals(row)
        columns = arrival_s.ravel(), passes[0], normals, passes[1], np.ones(n)
        return Draws(
            requests * np.arange(len(rates) + 1),
            *columns,
            self._seed,
            *np.maximum(np.rint(lengths), 1.0),
        )

    def _run(self, service: CalibratedService, draws: Draws, runs: int) -> dict[str, np.ndarray]:
        """Quantity -> simulated values in order of arrival, (rows x runs, requests); inf for a dropped request."""
        job = Job("calibrated", **service.job_fields)
        service_s = draws.service_s.copy()
        true_service_time(job).from_normals(service_s)
        replicas, model = np.repeat(self._measurements.replicas, runs), self._model
        jobs, draws = len(replicas), replace(draws, service_s=service_s)

        def simulated(job: Job) -> np.ndarray:
            limits = np.full(jobs, self._places)
            rules = model.dispatch, model.queue_limit, limits
            latency_s = constant_latencies((job,) * jobs, draws, replicas, *rules)
            return latency_s.reshape(jobs, -1)

        samples = {LATENCY: simulated(job) + service.overhead_s}
        for quantity in {quantity for quantity, _ in self._measurements.columns} - {
            LATENCY,
            TOGETHER,
        }:
            if isinstance(job.replica, Continuous):
                sample = simulated(replace(job, replica=replace(job.replica, slo_on=quantity)))
                samples[quantity] = sample + (
                    service.overhead_s if quantity == FIRST_TOKEN else 0.0
                )
            else:  # the whole answer arrives at once
                samples[quantity] = samples[LATENCY]
        return samples
