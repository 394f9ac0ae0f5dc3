"""A synthetic workload with the features of the published one: daily shapes, bursts, drifting levels, correlated jobs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faro_lib.workload.downsample import downsample, scale_to
from faro_lib.workload.jobs import MINUTE_S, Job, Traces

DOWNSAMPLE = 4
TRUE_SERVICE_S = 0.154  # mean service of the default model, for the calibration only
CALIBRATED_QUANTILE = 0.95
LOAD_PER_JOB = 2.26  # erlangs a job at that quantile: the published evaluation day's 22.6 for ten jobs


@dataclass(frozen=True, slots=True)
class Character:
    """How unruly the jobs are; all in log units unless noted.

    daily : size of the daily shape.
    drift, drift_hours : a slow wandering of the level, and how long it remembers.
    noise, noise_min : a fast wandering, and how many (downsampled) minutes it remembers.
    jitter : independent from minute to minute; job by job it varies threefold around this.
    shared : share of the wandering's variance that all jobs have in common.
    bursts_per_day, burst, burst_min : how often load surges, by how much, and how fast it fades.
    """

    daily: float = 0.22
    drift: float = 0.12
    drift_hours: float = 8.0
    noise: float = 0.08
    noise_min: float = 12.0
    jitter: float = 0.06
    shared: float = 0.3
    bursts_per_day: float = 1.0
    burst: float = 0.3
    burst_min: float = 6.0


def synthetic(
    seed: int = 1, jobs: int = 10, days: int = 10, minutes: int = 360, character: Character = Character()
) -> Traces:
    """Training days and a day to be judged on, all from one seed.

    Each job is exp(daily shape + slow drift + fast noise + bursts), generated at four times the resolution, downsampled and
    scaled as the published traces are, then scaled together so that 3.6, 3.2 and 1.6 replicas a job of the default model
    are right-sized, slightly and heavily oversubscribed: the 95th percentile of the jobs' total offered load on the
    evaluation day is 2.26 erlangs a job, the published day's.

    >>> traces = synthetic(seed=1, jobs=3, days=2, minutes=60)
    >>> traces.train.shape, traces.evaluation.shape
    ((2, 4, 3, 60), (4, 3, 60))
    """
    if min(jobs, minutes) < 1 or days < 0:
        raise ValueError(f"jobs={jobs}, days={days}, minutes={minutes}: at least 1 job, 0 days and 1 minute are needed")
    rng = np.random.default_rng([seed, 0])
    fine = minutes * DOWNSAMPLE
    steps = (days + 1) * fine
    phase = 2 * np.pi * np.arange(steps) / fine
    log_rate = np.zeros((jobs, steps))
    for harmonic in (1, 2, 3):
        size = character.daily / harmonic * rng.gamma(2.0, 0.5, (jobs, 1))
        log_rate += size * np.cos(harmonic * phase + rng.uniform(0, 2 * np.pi, (jobs, 1)))
    hour = fine / 24
    log_rate += character.drift * _wander(rng, jobs, steps, character.drift_hours * hour, character.shared)
    log_rate += character.noise * _wander(rng, jobs, steps, character.noise_min * DOWNSAMPLE, character.shared)
    log_rate += _bursts(rng, jobs, steps, character, fine)
    # Jitter is per downsampled minute, so that averaging does not remove it.
    sizes = character.jitter * np.exp(rng.uniform(-np.log(3), np.log(3), (jobs, 1)))
    log_rate += sizes * np.repeat(rng.standard_t(5, (jobs, steps // DOWNSAMPLE)), DOWNSAMPLE, axis=1)
    scaled = scale_to(downsample(np.exp(log_rate).reshape(jobs, days + 1, fine), DOWNSAMPLE)).astype(float)
    load = scaled[-1, 0].sum(axis=0) / MINUTE_S * TRUE_SERVICE_S
    factor = LOAD_PER_JOB * jobs / np.quantile(load, CALIBRATED_QUANTILE)
    counts = np.maximum(np.rint(scaled * factor), 0).astype(np.int64)
    return Traces(tuple(Job(f"job{n}") for n in range(jobs)), counts[:-1], counts[-1])


def _wander(rng, jobs, steps, memory, shared):
    """Stationary AR(1) of unit variance and the given memory (in steps), partly common to all jobs: (jobs, steps)."""
    from scipy.signal import lfilter

    keep = np.exp(-1 / memory)
    shocks = rng.standard_normal((jobs + 1, steps)) * np.sqrt(1 - keep**2)
    shocks[:, 0] /= np.sqrt(1 - keep**2)
    paths = lfilter([1.0], [1.0, -keep], shocks, axis=1)
    return np.sqrt(1 - shared) * paths[1:] + np.sqrt(shared) * paths[:1]


def _bursts(rng, jobs, steps, character, fine):
    """Surges that begin at once and fade exponentially: (jobs, steps), in log units."""
    from scipy.signal import lfilter

    begins = rng.random((jobs, steps)) < character.bursts_per_day / fine
    sizes = begins * rng.exponential(character.burst, (jobs, steps))
    return lfilter([1.0], [1.0, -np.exp(-1 / (character.burst_min * DOWNSAMPLE))], sizes, axis=1)
