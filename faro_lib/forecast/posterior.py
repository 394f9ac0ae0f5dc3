"""Forecaster "bayes": simulates the model of `regression` with posterior draws from a file, without PyMC."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from faro_lib.forecast.autoregression import simulation_start
from faro_lib.forecast.conformal import recalibrated
from faro_lib.forecast.forecaster import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, register
from faro_lib.forecast.regression import RECENT_MINUTES, from_root, log_change, root, windows
from faro_lib.workload import Job, Traces

# Errors with a Gaussian copula: correlated standard normals, mapped through a table of each job's error quantiles. The
# tables are at these standard normals.
NORMAL_GRID = np.linspace(-4.5, 4.5, 361)
# Paths are clipped to LIMIT_FACTOR x the largest count so far: squaring a root with a heavy-tailed error can explode.
LIMIT_FACTOR, MIN_LIMIT = 2, 100  # the limit is at least MIN_LIMIT requests per minute
CONVERGENCE = ("r_hat", "ess_bulk", "ess_tail", "divergences")  # largest, smallest, smallest, total


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Posterior draws and constants of the model in `regression`: all that forecasting needs."""

    jobs: tuple[str, ...]  # names
    day_minutes: int  # length of a day
    unit: np.ndarray  # mean root of each job's counts, shape (jobs,)
    shape: np.ndarray  # daily profile p of roots / unit, shape (jobs, day_minutes)
    off_shape: np.ndarray  # standard deviation of z on the training days, shape (jobs,); prior of a job without counts
    most: np.ndarray  # largest count of the training days, shape (jobs,)
    coefficients: np.ndarray  # a, b and c, shape (draws, jobs, features), features as in `regression.design`
    log_spread: np.ndarray  # s, log of the error's scale while counts change at the usual rate, shape (draws, jobs)
    follow: np.ndarray  # g, by how much that log rises with `log_change`, shape (draws, jobs)
    errors: np.ndarray  # quantiles of the standardised errors on NORMAL_GRID, shape (jobs, grid)
    root_correlation: np.ndarray  # A with A A' = correlation of the errors' normal scores, shape (jobs, jobs)
    convergence: np.ndarray = field(default_factory=lambda: np.full(len(CONVERGENCE), np.nan))  # NaN if not recorded

    def __post_init__(self):
        draws, jobs = self.draws, len(self.jobs)
        expected = {
            "unit": (jobs,),
            "shape": (jobs, self.day_minutes),
            "off_shape": (jobs,),
            "most": (jobs,),
            "coefficients": (draws, jobs, 2 * CONTEXT_MINUTES + 2),
            "log_spread": (draws, jobs),
            "follow": (draws, jobs),
            "errors": (jobs, len(NORMAL_GRID)),
            "root_correlation": (jobs, jobs),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array.shape != shape:
                raise ValueError(f"posterior: {name} has shape {array.shape}; expected {shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"posterior: {name} has a number that is not finite; fit it again")

    @property
    def draws(self) -> int:
        return len(self.coefficients)

    def select(self, names: Iterable[str]) -> Self:
        """The posterior of only the jobs `names`, in that order; ValueError if one was not fitted."""
        names = tuple(names)
        for name in names:
            if name not in self.jobs:
                raise ValueError(f"job {name!r} is not among the jobs of the posterior: {', '.join(self.jobs)}")
        index = [self.jobs.index(name) for name in names]
        correlation = (self.root_correlation @ self.root_correlation.T)[np.ix_(index, index)]
        correlation[np.diag_indices(len(index))] = 1.0
        first_axis = {f: getattr(self, f)[index] for f in ("unit", "shape", "off_shape", "most", "errors")}
        second_axis = {f: getattr(self, f)[:, index] for f in ("coefficients", "log_spread", "follow")}
        return replace(self, jobs=names, **first_axis, **second_axis, root_correlation=correlation_root(correlation))


def save_posterior(posterior: Posterior, path: str | Path) -> None:
    """Write the posterior to a compressed .npz file."""
    arrays: dict[str, Any] = {field.name: np.asarray(getattr(posterior, field.name)) for field in fields(Posterior)}
    np.savez_compressed(path, **arrays)


def load_posterior(path: str | Path) -> Posterior:
    """Read a file that `save_posterior` wrote; ValueError if it is missing or incomplete."""
    where = f"posterior={str(path)!r}"
    if not Path(path).exists():
        raise ValueError(
            f"{where} does not exist; fit one with bayes.fit_bayes and save it with forecast.save_posterior"
        )
    with np.load(path, allow_pickle=False) as arrays:
        missing = [field.name for field in fields(Posterior) if field.name not in [*arrays, "convergence"]]
        if missing:
            raise ValueError(f"{where} lacks {missing[0]!r}; it was not written by forecast.save_posterior")
        values = {field.name: arrays[field.name] for field in fields(Posterior) if field.name in arrays}
    values["jobs"] = tuple(str(name) for name in values["jobs"])
    values["day_minutes"] = values["day_minutes"].item()
    return Posterior(**values)


def correlation_root(correlation: np.ndarray) -> np.ndarray:
    """A matrix A with A A' = `correlation`, whose negative eigenvalues are set to 0 first."""
    if (correlation == np.eye(len(correlation))).all():
        return correlation  # free of rounding, so that `_errors` recognises it and skips the multiplication
    values, vectors = np.linalg.eigh(correlation)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    return factor / np.sqrt((factor**2).sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bayes(Forecaster):
    """Posterior predictive sample paths, one posterior draw per path; missing past minutes are simulated, too."""

    posterior: Posterior

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        posterior, rng, jobs = self.posterior, self.rng(), len(self.jobs)
        unit = posterior.unit[:, None]
        shape = posterior.shape[:, self.minutes_ahead(-self.counts.shape[1], horizon)]
        z = root(self.counts) / unit - shape[:, :-horizon]
        start, known = simulation_start(z, posterior.off_shape, rng.standard_normal((jobs, n)))
        steps = len(known) + horizon
        shape = shape[:, -steps - CONTEXT_MINUTES :].astype(np.float32)

        draws = posterior.draws
        rows = rng.integers(draws, size=n) if n < draws else np.arange(n) % draws
        weights = posterior.coefficients[rows].astype(np.float32)  # (n, jobs, features)
        lags = np.ascontiguousarray(weights[..., :CONTEXT_MINUTES].transpose(2, 1, 0))  # (lags, jobs, n)
        of_shape = weights[..., CONTEXT_MINUTES:-1].transpose(1, 2, 0)  # (jobs, lags + 1, n)
        offset = np.matmul(windows(shape - 1, CONTEXT_MINUTES + 1), of_shape)  # (jobs, steps, n)
        offset = offset.transpose(1, 0, 2) + weights[..., -1].T
        log_spread, follow = (a[rows].T.astype(np.float32) for a in (posterior.log_spread, posterior.follow))
        errors = self._errors(rng, steps, n)

        path = np.empty((CONTEXT_MINUTES + steps, jobs, n), dtype=np.float32)
        path[:CONTEXT_MINUTES] = start
        low = root(0) / unit - shape[:, CONTEXT_MINUTES:]
        high = root(self._limit())[:, None] / unit - shape[:, CONTEXT_MINUTES:]
        for step in range(steps):
            past = path[step : step + CONTEXT_MINUTES]
            spread = np.exp(log_spread + follow * log_change(past[-RECENT_MINUTES - 1 :], axis=0))
            z_next = np.einsum("ljn,ljn->jn", lags, past) + offset[step] + spread * errors[step]
            z_next = np.clip(z_next, low[:, step, None], high[:, step, None])
            if step < len(known):
                z_next = np.where(np.isnan(known[step])[:, None], z_next, known[step][:, None])
            path[CONTEXT_MINUTES + step] = z_next
        future = path[-horizon:].transpose(1, 2, 0) + shape[:, None, -horizon:]
        return from_root(future * unit[:, :, None])

    def _errors(self, rng, steps: int, n: int) -> np.ndarray:
        """Standardised errors, correlated over jobs, shape (steps, jobs, n)."""
        jobs = len(self.jobs)
        normal = rng.standard_normal((steps, jobs, n), dtype=np.float32)
        if (self.posterior.root_correlation != np.eye(jobs)).any():
            normal = np.matmul(self.posterior.root_correlation.astype(np.float32), normal)
        # Linear interpolation in one table per job; np.interp takes a single table.
        position = (np.clip(normal, NORMAL_GRID[0], NORMAL_GRID[-1] - 1e-3) - NORMAL_GRID[0]) / (
            NORMAL_GRID[1] - NORMAL_GRID[0]
        )
        below = position.astype(np.int32)
        position -= below
        below += (np.arange(jobs, dtype=np.int32) * len(NORMAL_GRID))[None, :, None]
        table = self.posterior.errors.astype(np.float32).ravel()
        return table[below] * (1 - position) + table[below + 1] * position

    def _limit(self) -> np.ndarray:
        """The count to which the paths of a job are clipped, shape (jobs,)."""
        recent = np.where(np.isnan(self.counts), 0, self.counts).max(axis=1)
        return np.maximum(LIMIT_FACTOR * np.maximum(self.posterior.most, recent), MIN_LIMIT)


def bayes_forecaster(
    posterior: Posterior, jobs: Iterable[str | Job] | None = None, *, seed: int = 0, recalibrate: bool = True
) -> Forecaster:
    """The forecaster "bayes" of `jobs` (names or Jobs; None: all in the posterior), with recalibrated tails by default."""
    names = posterior.jobs if jobs is None else tuple(job.name if isinstance(job, Job) else job for job in jobs)
    selected = posterior.select(names)
    forecaster = Bayes(jobs=names, seed=seed, day_minutes=posterior.day_minutes, posterior=selected)
    return recalibrated(forecaster) if recalibrate else forecaster


@register("bayes")
def bayes(
    traces: Traces, *, seed: int = 0, posterior: Posterior | str | Path | None = None, recalibrate: bool = True
) -> Forecaster:
    """The forecaster "bayes" for the jobs of `traces`; `posterior` is a `Posterior` or the path of its .npz file."""
    if posterior is None:
        raise ValueError(
            "posterior=None: the bayes forecaster is not fitted; give a posterior of bayes.fit_bayes or its .npz"
        )
    fitted = posterior if isinstance(posterior, Posterior) else load_posterior(posterior)
    return bayes_forecaster(fitted, traces.jobs, seed=seed, recalibrate=recalibrate)
