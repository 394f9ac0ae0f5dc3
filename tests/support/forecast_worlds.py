"""Worlds whose truth is known: a posterior written by hand, and days drawn from it."""

import numpy as np

from faro_lib.forecast import Posterior
from faro_lib.forecast.posterior import NORMAL_GRID, Convergence, data_hashes
from faro_lib.forecast.regression import MIN_SPREAD, from_root
from faro_lib.workload import Job, Traces

GOOD = Convergence(1.002, 900, 800, 0)
BAD = Convergence(1.22, 7, 9, 3)


def ar1_posterior(
    jobs=4,
    lag=0.8,
    spread=0.05,
    unit=20.0,
    correlation=None,
    day_minutes=360,
    draws=10,
    convergence=GOOD,
    traces=None,
):
    """Each job an AR(1) with normal errors about a flat day at `unit` on the root scale.

    The posterior looks as if it was fitted to `traces`.
    """
    coefficients = np.zeros((draws, jobs, 32))
    coefficients[:, :, 14] = lag
    root_correlation = np.eye(jobs) if correlation is None else np.linalg.cholesky(correlation)
    return Posterior(
        jobs=tuple(f"job{j}" for j in range(jobs)),
        day_minutes=day_minutes,
        unit=np.full(jobs, unit),
        shape=np.ones((jobs, day_minutes)),
        off_shape=np.full(jobs, spread / np.sqrt(1 - lag**2)),
        most=np.full(jobs, 4 * unit**2),
        coefficients=coefficients,
        log_spread=np.full((draws, jobs), np.log(spread - MIN_SPREAD / unit)),
        follow=np.zeros((draws, jobs)),
        errors=np.repeat(NORMAL_GRID[None], jobs, axis=0),
        root_correlation=root_correlation,
        convergence=convergence,
        data=data_hashes(traces) if traces else np.full(jobs, ""),
    )


def ar1_day(jobs=4, minutes=360, lag=0.8, spread=0.05, unit=20.0, seed=0):
    """A day drawn from `ar1_posterior`: requests per minute (jobs, minutes), not rounded."""
    rng = np.random.default_rng(seed)
    z = np.zeros((jobs, minutes))
    for t in range(1, minutes):
        z[:, t] = lag * z[:, t - 1] + spread * rng.standard_normal(jobs)
    return from_root(unit * (1 + z))


def shaped_traces(seed=0, days=5, samples=2, jobs=4, minutes=120):
    """Poisson counts: a day shape, a wandering level, jobs of different scales."""
    rng = np.random.default_rng(seed)
    shape = np.sin(2 * np.pi * np.arange(minutes) / minutes + np.arange(jobs)[:, None])
    wander = np.zeros((days + 1, samples, jobs, minutes))
    for t in range(1, minutes):
        wander[..., t] = 0.9 * wander[..., t - 1] + 0.1 * rng.standard_normal(wander.shape[:-1])
    counts = rng.poisson(np.exp(np.linspace(3, 6, jobs)[:, None] + 0.5 * shape + wander))
    return Traces(tuple(Job(f"job{j}") for j in range(jobs)), counts[:-1], counts[-1])
