"""Simulate a service's measured values, such as latency quantiles, and their sampling errors."""

from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.simulate.cluster import ServingModel
from faro_lib.simulate.draws import Draws
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from faro_lib.workload.service import ServiceTime, true_service_time
from faro_ops.advise.calibrate.measurements import (
    FIRST_TOKEN,
    LATENCY,
    TOGETHER,
    Measurements,
    requests_together,
)
from faro_ops.advise.calibrate.priors import CalibratedService

ERROR_RUNS = 32  # simulated repetitions of each measured period to estimate its sampling errors
MAX_RUNS = 8  # maximum number of repetitions over which `Simulator.values` averages
# Maximum requests per repetition; the error variance of a longer period is scaled down in
# proportion.
MAX_RUN = 2000
# This share of a repetition's requests is discarded at its start, because queues begin empty.
WARM_UP = 0.1
MIN_WARM_UP = 50
NEVER_S = 1e6  # stands for the latency of a period in which nothing is served
FLOOR = 0.005  # smallest relative error of a measured value


class Simulator:
    """Simulates the measured periods for a service, always with the same random numbers.

    places : max_ongoing_requests of a replica.
    requests : number to simulate for each row, in one or more repetitions.
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
        self._measurements = measurements
        self._model = ServingModel(dispatch)
        self._places = places
        self._tokens = tokens
        self._seed = seed
        self._length = np.minimum(measurements.requests, MAX_RUN)  # of a repetition, (rows,)
        self._runs = int(np.clip(requests // self._length.max(), 1, MAX_RUNS))
        self._draws = self._draw(self._runs)

    def values(self, service: CalibratedService) -> np.ndarray:
        """Mean over repetitions of the logarithms of the simulated values, shape (rows, columns).

        Slow requests cluster near saturation. A quantile over a short period is then on average far
        below the long-run quantile. Therefore a repetition has as many requests as a measured
        period, up to MAX_RUN.
        """
        return self._repeated(service, self._draws, self._runs).mean(axis=0)

    def errors(self, service: CalibratedService) -> np.ndarray:
        """Covariance of the sampling errors of the values' logarithms.

        Shape (rows, columns, columns). It is the sum of two covariances, because both the measured
        and the simulated values have sampling errors. The divisor in `covariance` makes the inverse
        of the matrix unbiased (Hartlap, Simon and Schneider, 2007).
        """
        values = self._repeated(service, self._draw(ERROR_RUNS), ERROR_RUNS)
        columns = values.shape[2]
        apart = values - values.mean(axis=0)
        covariance = np.einsum("nri,nrj->rij", apart, apart) / (ERROR_RUNS - 2 - columns)
        measured = self._length / (self._measurements.requests * self._measurements.periods)
        simulated = 1 / self._runs
        factor = measured + simulated  # (rows,)
        return covariance * factor[:, None, None] + FLOOR**2 * np.eye(columns)

    def _repeated(self, service: CalibratedService, draws: Draws, runs: int) -> np.ndarray:
        """Logarithms of the simulated measurements, shape (runs, rows, columns)."""
        length = self._length.max()
        m = np.repeat(self._length, runs)  # requests of each repetition, (rows x runs,)
        unused = np.arange(length) >= m[:, None]  # (rows x runs, length)
        samples = {
            quantity: np.where(unused, np.inf, sample[:, -length:])
            for quantity, sample in self._run(service, draws, runs).items()
        }
        ordered = {quantity: np.sort(sample, axis=1) for quantity, sample in samples.items()}
        values = []
        for quantity, level in self._measurements.columns:
            if quantity == TOGETHER:
                arrival_s = draws.arrival_s.reshape(len(m), -1)[:, -length:]
                values.append(requests_together(arrival_s + samples[LATENCY]))
            elif level is None:
                values.append(_means(ordered[quantity]))
            else:
                values.append(_quantiles(ordered[quantity], level))
        logarithms = np.log(np.maximum(np.stack(values, axis=1), 1 / NEVER_S))
        return logarithms.reshape(-1, runs, len(values)).swapaxes(0, 1)

    def _draw(self, runs: int) -> Draws:
        """Draw random numbers for all repetitions.

        Service times are standard normals until `_run` transforms them.
        """
        rates = np.repeat(self._measurements.rate_rps, runs)
        length = int(self._length.max())
        requests = length + max(MIN_WARM_UP, int(length * WARM_UP / (1 - WARM_UP)))
        n = len(rates) * requests
        rng = np.random.default_rng(self._seed)
        # Scaling the gaps gives sorted uniform arrival times. Each repetition then has exactly the
        # measured rate.
        gaps = rng.standard_exponential((len(rates), requests + 1))
        uniform = np.cumsum(gaps, axis=1)[:, :-1] / gaps.sum(axis=1, keepdims=True)
        arrival_s = uniform * (requests / rates)[:, None]  # (rows x runs, requests)
        normals = rng.standard_normal(n)
        lengths = rng.standard_normal((2, n))
        passes = rng.standard_normal((2, n if self._model.router else 0))
        if self._model.router:
            self._model.router.from_normals(passes)
        for row, name in zip(lengths, ("prompt", "output")):
            mean = self._tokens.get(f"{name}_tokens", 1.0)
            cv = self._tokens.get(f"{name}_cv", 0.0)
            ServiceTime.from_moments(mean, cv**2).from_normals(row)
        prompt_tokens, output_tokens = np.maximum(np.rint(lengths), 1.0)
        return Draws(
            first=requests * np.arange(len(rates) + 1),
            arrival_s=arrival_s.ravel(),
            router_in_s=passes[0],
            service_s=normals,
            router_out_s=passes[1],
            coin=np.ones(n, np.float32),
            seed=self._seed,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
        )

    def _run(self, service: CalibratedService, draws: Draws, runs: int) -> dict[str, np.ndarray]:
        """Quantity -> simulated values in order of arrival, shape (rows x runs, requests).

        They are inf for dropped requests.
        """
        job = Job("calibrated", **service.job_fields)
        service_s = draws.service_s.copy()
        true_service_time(job).from_normals(service_s)
        draws = replace(draws, service_s=service_s)
        replicas = np.repeat(self._measurements.replicas, runs)
        model = self._model
        jobs = len(replicas)

        def simulated(job: Job) -> np.ndarray:
            limits = np.full(jobs, self._places)
            rules = model.dispatch, model.queue_limit, limits
            latency_s = constant_latencies((job,) * jobs, draws, replicas, *rules)
            return latency_s.reshape(jobs, -1)

        samples = {LATENCY: simulated(job) + service.overhead_s}
        measured = {quantity for quantity, _ in self._measurements.columns}
        for quantity in measured - {LATENCY, TOGETHER}:
            if isinstance(job.replica, Continuous):
                sample = simulated(replace(job, replica=replace(job.replica, slo_on=quantity)))
                overhead_s = service.overhead_s if quantity == FIRST_TOKEN else 0.0
                samples[quantity] = sample + overhead_s
            else:  # the whole answer arrives at once
                samples[quantity] = samples[LATENCY]
        return samples


def _means(ordered: np.ndarray) -> np.ndarray:
    """Mean of the finite values in each row (rows, requests); NEVER_S if a row has none."""
    finite = np.isfinite(ordered)
    served = np.maximum(finite.sum(axis=1), 1)
    served_s = np.where(finite, ordered, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), served_s / served, NEVER_S)


def _quantiles(ordered: np.ndarray, level: float) -> np.ndarray:
    """Quantile of the finite values in each row (rows, requests), which is sorted.

    It is interpolated, as by `numpy.quantile`. NEVER_S if a row has no finite value.
    """
    served = np.maximum(np.isfinite(ordered).sum(axis=1), 1)
    position = level * (served - 1)
    low = position.astype(int)
    high = np.minimum(low + 1, served - 1)
    below, above = np.minimum(ordered[np.arange(len(ordered)), [low, high]], NEVER_S)
    return below + (position - low) * (above - below)
