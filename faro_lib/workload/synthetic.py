"""Synthetic traces with daily shapes, bursts, drifting levels and correlated jobs.

They are preprocessed like the published traces. `downsample` averages blocks of 4 minutes, which
reduces a day from 1,440 to 360 minutes. `scale_to` maps each job's counts linearly to 1..1600
requests per minute.
"""

import numpy as np

from faro_lib.workload.jobs import MINUTE_S, Job, Traces

DOWNSAMPLE = 4
TRUE_SERVICE_S = 0.154  # mean service time of the default model
# Calibration sets this quantile of the evaluation day's load to LOAD_PER_JOB per job.
CALIBRATED_QUANTILE = 0.95
LOAD_PER_JOB = 2.26  # erlangs per job at CALIBRATED_QUANTILE, as in the published traces

# How the load varies. Amplitudes, standard deviations and heights are of the logarithm of the rate.
DAILY = 0.22  # mean amplitude of the first harmonic of the daily shape
DRIFT = 0.12  # standard deviation of the slow drift
DRIFT_HOURS = 8.0  # correlation time of the slow drift
NOISE = 0.08  # standard deviation of the fast noise
# Correlation time of the fast noise, in downsampled minutes (DOWNSAMPLE original minutes each).
NOISE_MINUTES = 12.0
# Scale of the noise in each downsampled minute. Each job multiplies it by its own factor, 1/3 to 3.
JITTER = 0.06
SHARED = 0.3  # share of the variance of drift and noise that is common to all jobs
BURSTS_PER_DAY = 1.0
BURST = 0.3  # mean height of a burst at its start
BURST_MINUTES = 6.0  # decay time of a burst, in downsampled minutes


def synthetic(seed: int = 1, jobs: int = 10, days: int = 10, minutes: int = 360) -> Traces:
    """Traces from a seed, preprocessed like the published traces and with a calibrated load.

    The logarithm of a job's rate is the sum of a daily shape, slow drift, fast noise, bursts and
    jitter. Calibration scales all jobs by one factor, so that the CALIBRATED_QUANTILE of the total
    offered load on the evaluation day is LOAD_PER_JOB erlangs per job. With the default model,
    about 3.6 replicas per job are then enough, as in the paper.

    >>> traces = synthetic(seed=1, jobs=3, days=2, minutes=60)
    >>> traces.train.shape, traces.evaluation.shape
    ((2, 4, 3, 60), (4, 3, 60))
    """
    if min(jobs, minutes) < 1 or days < 0:
        needed = "at least 1 job, 0 days and 1 minute are needed"
        raise ValueError(f"jobs={jobs}, days={days}, minutes={minutes}: {needed}")
    rng = np.random.default_rng([seed, 0])
    fine = minutes * DOWNSAMPLE
    steps = (days + 1) * fine
    phase = 2 * np.pi * np.arange(steps) / fine
    log_rate = np.zeros((jobs, steps))
    for harmonic in (1, 2, 3):
        size = DAILY / harmonic * rng.gamma(2.0, 0.5, (jobs, 1))
        log_rate += size * np.cos(harmonic * phase + rng.uniform(0, 2 * np.pi, (jobs, 1)))
    log_rate += DRIFT * _drift(rng, jobs, steps, memory=DRIFT_HOURS * (fine / 24))
    log_rate += NOISE * _drift(rng, jobs, steps, memory=NOISE_MINUTES * DOWNSAMPLE)
    starts = rng.random((jobs, steps)) < BURSTS_PER_DAY / fine
    bursts = starts * rng.exponential(BURST, (jobs, steps))
    log_rate += _decaying_sum(bursts, np.exp(-1 / (BURST_MINUTES * DOWNSAMPLE)))
    # Jitter is per downsampled minute, because averaging would remove finer jitter.
    sizes = JITTER * np.exp(rng.uniform(-np.log(3), np.log(3), (jobs, 1)))
    jitter = rng.standard_t(5, (jobs, steps // DOWNSAMPLE))
    log_rate += sizes * np.repeat(jitter, DOWNSAMPLE, axis=1)

    rate = np.exp(log_rate).reshape(jobs, days + 1, fine)
    scaled = scale_to(downsample(rate)).astype(float)  # (days + 1, DOWNSAMPLE, jobs, minutes)
    load = scaled[-1, 0].sum(axis=0) / MINUTE_S * TRUE_SERVICE_S  # erlangs, (minutes,)
    factor = LOAD_PER_JOB * jobs / np.quantile(load, CALIBRATED_QUANTILE)
    counts = np.maximum(np.rint(scaled * factor), 0).astype(np.int64)
    return Traces(tuple(Job(f"job{n}") for n in range(jobs)), counts[:-1], counts[-1])


def downsample(per_min: np.ndarray, factor: int = DOWNSAMPLE) -> np.ndarray:
    """Average blocks of `factor` minutes, in `factor` samples whose blocks start one minute apart.

    `per_min` has shape (jobs, days, minutes), the result (days, factor, jobs, minutes / factor). In
    sample k, every day begins and ends k minutes after midnight. The last day is extended by copies
    of its last minute.

    >>> downsample(np.arange(16.0).reshape(1, 2, 8))[0].tolist()
    [[[1.5, 5.5]], [[2.5, 6.5]], [[3.5, 7.5]], [[4.5, 8.5]]]
    """
    jobs, days, minutes = per_min.shape
    if minutes % factor:
        problem = f"a day of {minutes} minutes cannot be downsampled by {factor}"
        raise ValueError(f"{problem}; the factor must divide the minutes")
    flat = np.pad(per_min.reshape(jobs, -1), ((0, 0), (0, factor - 1)), mode="edge")
    phases = [
        flat[:, k : k + days * minutes].reshape(jobs, days, -1, factor).mean(-1)
        for k in range(factor)
    ]
    return np.stack(phases).transpose(2, 0, 1, 3)


def scale_to(per_min: np.ndarray, maximum: int = 1600) -> np.ndarray:
    """Scale each job's counts (days, samples, jobs, minutes) linearly to 1..maximum; round them."""
    low = per_min.min(axis=(0, 1, 3), keepdims=True)
    high = per_min.max(axis=(0, 1, 3), keepdims=True)
    span = np.where(high > low, high - low, 1)
    return np.rint(1 + (per_min - low) / span * (maximum - 1)).astype(np.int64)


def _drift(rng, jobs, steps, memory):
    """Stationary AR(1) paths (jobs, steps) with variance 1 and correlation time `memory` (steps).

    The share SHARED of the variance comes from a path that all jobs have in common.
    """
    keep = np.exp(-1 / memory)
    shocks = rng.standard_normal((jobs + 1, steps)) * np.sqrt(1 - keep**2)
    shocks[:, 0] /= np.sqrt(1 - keep**2)
    paths = _decaying_sum(shocks, keep)
    return np.sqrt(1 - SHARED) * paths[1:] + np.sqrt(SHARED) * paths[:1]


def _decaying_sum(values, keep):
    """y_t = values_t + keep y_{t-1} along the steps, shape (jobs, steps)."""
    # The import takes 0.5 s, and only generating traces needs it.
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -keep], values, axis=1)
