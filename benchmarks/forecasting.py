"""CPU time of a forecaster's update and sample, with 10 and 1,000 jobs.

    python benchmarks/forecasting.py [posterior.npz]

Each number is the minimum of several repetitions: milliseconds of `update` and `sample` (7 minutes
x 100 paths), and the ratio to persistence in the same run.
"""

import sys
import time

import numpy as np

from faro_lib import forecast
from faro_lib.workload import Job, Traces


def world(jobs: int, days: int = 2, minutes: int = 120, seed: int = 0) -> Traces:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.uniform(50, 1500, (jobs, 1)), (days + 1, 1, jobs, minutes))
    return Traces(tuple(Job(f"job{j}") for j in range(jobs)), counts[:-1], counts[-1])


def posterior(jobs: int, draws: int = 200, minutes: int = 360, seed: int = 0) -> forecast.Posterior:
    """A random posterior of realistic size; the time does not depend on the values."""
    from faro_lib.forecast.posterior import NORMAL_GRID, Convergence

    rng = np.random.default_rng(seed)
    coefficients = rng.normal(0, 0.01, (draws, jobs, 32)).astype(np.float32)
    coefficients[:, :, 14] += 0.8
    correlation = np.eye(jobs) * 0.7 + 0.3
    flat = np.full((draws, jobs), -3.0, dtype=np.float32)
    return forecast.Posterior(
        jobs=tuple(f"job{j}" for j in range(jobs)),
        day_minutes=minutes,
        unit=rng.uniform(7, 39, jobs),
        shape=1 + 0.1 * rng.standard_normal((jobs, minutes)),
        off_shape=np.full(jobs, 0.2),
        most=np.full(jobs, 1600.0),
        coefficients=coefficients,
        log_spread=flat,
        follow=flat * 0 + 0.4,
        errors=np.repeat(NORMAL_GRID[None], jobs, axis=0).astype(np.float32),
        root_correlation=np.linalg.cholesky(correlation),
        convergence=Convergence(1.0, 1000, 1000, 0),
        data=np.full(jobs, ""),
    )


def step_ms(forecaster, day, repetitions: int = 7) -> float:
    for minute in range(20):
        forecaster = forecaster.update(day[:, minute])
    best = np.inf
    for _ in range(repetitions):
        started = time.process_time()
        forecaster.update(day[:, 20]).sample(7, 100)
        best = min(best, time.process_time() - started)
    return best * 1000


def gappy_ms(forecaster, day) -> float:
    """`step_ms` with one missing minute, which the forecaster must simulate first."""
    for minute in range(20):
        forecaster = forecaster.update(np.where(minute == 8, np.nan, day[:, minute]))
    return min(step_ms_once(forecaster, day) for _ in range(5))


def step_ms_once(forecaster, day) -> float:
    started = time.process_time()
    forecaster.update(day[:, 20]).sample(7, 100)
    return (time.process_time() - started) * 1000


def main(path: str | None = None) -> None:
    for jobs in (10, 1000):
        traces = world(jobs)
        day = traces.evaluation[0]
        names = ("persistence", "seasonal", "kalman", "ar", "poisson", "auto")
        made = {name: forecast.fit(name, traces) for name in names}
        learned = forecast.load_posterior(path) if path and jobs == 10 else posterior(jobs)
        made["bayes (not recalibrated)"] = forecast.bayes_forecaster(learned, recalibrate=False)
        made["bayes"] = forecast.bayes_forecaster(learned)
        times = {name: step_ms(forecaster, day) for name, forecaster in made.items()}
        times["bayes, a minute missing"] = gappy_ms(made["bayes"], day)
        for name, milliseconds in times.items():
            print(
                f"{jobs:5d} jobs  {name:26s} {milliseconds:9.2f} ms   "
                f"{milliseconds / times['persistence']:6.1f} x persistence"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
