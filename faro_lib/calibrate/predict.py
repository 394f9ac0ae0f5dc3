"""Latency quantiles of a service by simulation, and the errors with which a run of the measured length shows them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.calibrate.measurements import FIRST_TOKEN, LATENCY, Measurements
from faro_lib.calibrate.priors import CalibratedService
from faro_lib.simulate.cluster import ServingModel
from faro_lib.simulate.draws import Draws
from faro_lib.simulate.serving import Serving
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from faro_lib.workload.service import ServiceTime, true_service_time

BATCHES = 20  # of a simulated row; their means estimate sampling errors including the correlation that queueing causes
WARM_UP = 0.1  # share of a simulated row that is left out, because queues begin empty
FLOOR = 0.002  # smallest relative error of a measured value


class Simulator:
    """Runs a service at the rates and replica counts of the measurements, always with the same random numbers.

    requests : number of requests to simulate in every row.
    """

    def __init__(
        self, measurements: Measurements, dispatch: str, places: int, tokens: Mapping[str, Any], requests: int, seed: int
    ):
        self._measurements, self._places, self._model = measurements, places, ServingModel(dispatch)
        rows, rng = len(measurements.rate_rps), np.random.default_rng(seed)
        gaps_s = rng.standard_exponential((rows, requests)) / measurements.rate_rps[:, None]
        self._normals = rng.standard_normal(rows * requests)
        passes = np.empty((2, 0))
        if self._model.router:
            passes = rng.standard_normal((2, rows * requests))
            for normals in passes:
                self._model.router.from_normals(normals)
        first = requests * np.arange(rows + 1)
        columns = np.cumsum(gaps_s, axis=1).ravel(), passes[0], self._normals, passes[1], np.ones(rows * requests)
        lengths = rng.standard_normal((2, rows * requests))
        for normals, name in zip(lengths, ("prompt", "output")):
            moments = tokens.get(f"{name}_tokens", 1.0), tokens.get(f"{name}_cv", 0.0)
            ServiceTime.from_moments(moments[0], moments[1] ** 2).from_normals(normals)
        self._draws = Draws(first, *columns, seed, *np.maximum(np.rint(lengths), 1.0))

    def values(self, service: CalibratedService) -> np.ndarray:
        """Logarithms of the values that the service would show in the measured periods, shape (rows, columns).

        A quantile of m requests is on average at the level (p (m - 1) + 0.7) / (m + 0.4) of the distribution (median rank,
        Benard and Bos-Levenbach, 1953).
        """
        samples = self._run(service)
        ordered = {quantity: np.sort(sample, axis=1) for quantity, sample in samples.items()}
        values = []
        for quantity, level in self._measurements.columns:
            served = _served(samples[quantity])
            if level is None:
                values.append(np.where(np.isfinite(samples[quantity]), samples[quantity], 0.0).sum(axis=1) / served)
            else:
                values.append(_at(ordered[quantity], served, self._level(level)))
        return np.log(np.stack(values, axis=1))

    def errors(self, service: CalibratedService) -> np.ndarray:
        """Covariance of the sampling errors of the logarithms of the measured values, shape (rows, columns, columns).

        The error of a quantile is that of the empirical distribution function there, by its long-run variance from batch
        means, divided by the density (Bahadur, 1966). The simulation of n requests instead of m adds the factor 1 + m / n.
        """
        m, samples, influences = self._measurements.requests, self._run(service), []
        for quantity, level in self._measurements.columns:
            sample, served = samples[quantity], _served(samples[quantity])
            finite = np.isfinite(sample)
            if level is None:
                total = np.where(finite, sample, 0.0)
                influences.append(total / total.sum(axis=1, keepdims=True) * served[:, None])
                continue
            ordered, at = np.sort(sample, axis=1), self._level(level)
            above = finite & (sample > _at(ordered, served, at)[:, None])
            error = np.sqrt(_long_run(above[..., None])[:, 0, 0] / m) + 1 / served
            low, high = np.maximum(at - error, 0.5 / served), np.minimum(at + error, 1 - 0.5 / served)
            slope = np.log(_at(ordered, served, high) / _at(ordered, served, low)) / (high - low)
            influences.append(above * slope[:, None])
        factor = 1 / m + 1 / influences[0].shape[1]
        return _long_run(np.stack(influences, axis=-1)) * factor[:, None, None] + FLOOR**2 * np.eye(len(influences))

    def _run(self, service: CalibratedService) -> dict[str, np.ndarray]:
        """Quantity -> simulated values in order of arrival, shape (rows, n); inf for a dropped request."""
        job = Job("calibrated", **service.job_fields)
        service_s = self._normals.copy()
        true_service_time(job).from_normals(service_s)
        draws = replace(self._draws, service_s=service_s)
        rows = len(self._measurements.replicas)

        def simulated(job: Job) -> np.ndarray:
            limits = np.full(rows, self._places)
            serving = Serving((job,) * rows, draws, 1, self._model.dispatch, self._model.queue_limit, limits)
            for row, replicas in enumerate(self._measurements.replicas):
                for _ in range(replicas):
                    serving.add_replica(row, 0.0)
            serving.advance(np.finfo(float).max)
            latency_s = serving.requests.latency_s.reshape(rows, -1)
            return latency_s[:, int(WARM_UP * latency_s.shape[1]) :]

        samples = {LATENCY: simulated(job) + service.overhead_s}
        for quantity in {quantity for quantity, _ in self._measurements.columns} - {LATENCY}:
            if isinstance(job.replica, Continuous):
                sample = simulated(replace(job, replica=replace(job.replica, slo_on=quantity)))
                samples[quantity] = sample + (service.overhead_s if quantity == FIRST_TOKEN else 0.0)
            else:  # the whole answer arrives at once
                samples[quantity] = samples[LATENCY]
        return samples

    def _level(self, level: float) -> np.ndarray:
        m = self._measurements.requests
        return (level * (m - 1) + 0.7) / (m + 0.4)


def _served(sample):
    return np.maximum(np.isfinite(sample).sum(axis=1), 1)


def _at(ordered, served, level):
    """The quantile `level` (rows,) of the first `served` (rows,) ordered values of each row, interpolated linearly."""
    position = level * (served - 1)
    low = position.astype(int)
    high = np.minimum(low + 1, served - 1)
    rows = np.arange(len(ordered))
    return ordered[rows, low] + (position - low) * (ordered[rows, high] - ordered[rows, low])


def _long_run(series):
    """Covariance of sqrt(n) x the mean of correlated series (rows, n, columns), by batch means: (rows, columns, columns)."""
    rows, n, columns = series.shape
    length = n // BATCHES
    means = series[:, n - length * BATCHES :].reshape(rows, BATCHES, length, columns).mean(axis=2)
    means = means - means.mean(axis=1, keepdims=True)
    return length * np.einsum("rbi,rbj->rij", means, means) / (BATCHES - 1)
