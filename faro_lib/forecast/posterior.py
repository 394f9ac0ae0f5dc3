"""Forecaster "bayes": simulates `forecast.regression` with stored posterior draws, without PyMC."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from faro_lib.forecast.autoregression import simulation_start
from faro_lib.forecast.conformal import recalibrated
from faro_lib.forecast.forecaster import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, register
from faro_lib.forecast.regression import (
    RECENT_MINUTES,
    from_root,
    log_change,
    root,
    spread_of,
    windows,
)
from faro_lib.workload import Traces

# For each of these standard normal values, `Posterior.errors` has the error quantile of the same
# probability. `Bayes._errors` draws normal values that are correlated between jobs, and looks up
# the errors (a Gaussian copula).
NORMAL_GRID = np.linspace(-4.5, 4.5, 1801)
# Simulated counts are at most LIMIT_FACTOR times the largest past count, because their distribution
# has a heavy tail.
LIMIT_FACTOR = 2
MIN_LIMIT = 100  # the limit is at least this many requests per minute
MAX_R_HAT, MIN_ESS = 1.01, 400  # limits of a converged fit (Vehtari et al. 2021)


class Convergence(NamedTuple):
    """Convergence diagnostics of a NUTS fit: the worst value among all parameters."""

    r_hat: float  # largest rank-normalised R-hat
    ess_bulk: float  # smallest effective sample size in the bulk
    ess_tail: float  # smallest effective sample size in the tails
    divergences: float  # number of divergent transitions in all chains

    @property
    def passed(self) -> bool:
        """Whether the fit has converged and may be used."""
        return (
            self.r_hat <= MAX_R_HAT
            and min(self.ess_bulk, self.ess_tail) >= MIN_ESS
            and self.divergences == 0
        )

    def __str__(self):
        verdict = "is used" if self.passed else "has not converged and is not used"
        return (
            f"The Bayesian fit {verdict}: largest R-hat {self.r_hat:.3f} (at most {MAX_R_HAT}), "
            f"smallest effective sample size {self.ess_bulk:.0f} in the bulk and "
            f"{self.ess_tail:.0f} in the tails (at least {MIN_ESS}), "
            f"{self.divergences:.0f} divergences (none)."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Posterior draws and constants of the autoregression (symbols as in `forecast.regression`)."""

    jobs: tuple[str, ...]  # names
    day_minutes: int  # length of a day in minutes
    unit: np.ndarray  # mean `root` of each job's counts, shape (jobs,)
    # Daily profile p: mean of root(count) / unit by minute of the day, (jobs, day_minutes).
    shape: np.ndarray
    # Standard deviation of z = root(count) / unit - p on the training days, shape (jobs,).
    off_shape: np.ndarray
    most: np.ndarray  # largest count of the training days, shape (jobs,)
    # Weights a (lags), b (profile) and c (constant), (draws, jobs, features).
    coefficients: np.ndarray
    log_spread: np.ndarray  # s of the scale of the errors (`regression.spread_of`), (draws, jobs)
    follow: np.ndarray  # g of the scale of the errors, (draws, jobs)
    # Quantiles of the standardised errors at the probabilities of NORMAL_GRID, (jobs, grid).
    errors: np.ndarray
    # A with A A' = correlation of the errors' normal scores, shape (jobs, jobs).
    root_correlation: np.ndarray
    convergence: Convergence
    data: np.ndarray  # `data_hashes` of the training days, shape (jobs,)

    @property
    def draws(self) -> int:
        return len(self.coefficients)

    def select(self, names: Iterable[str]) -> Self:
        """The posterior of the jobs `names`, in that order; ValueError if a job was not fitted."""
        names = tuple(names)
        for name in names:
            if name not in self.jobs:
                raise ValueError(
                    f"job {name!r} is not among the jobs of the posterior: {', '.join(self.jobs)}"
                )
        index = [self.jobs.index(name) for name in names]
        correlation = (self.root_correlation @ self.root_correlation.T)[np.ix_(index, index)]
        correlation[np.diag_indices(len(index))] = 1.0
        return replace(
            self,
            jobs=names,
            unit=self.unit[index],
            shape=self.shape[index],
            off_shape=self.off_shape[index],
            most=self.most[index],
            coefficients=self.coefficients[:, index],
            log_spread=self.log_spread[:, index],
            follow=self.follow[:, index],
            errors=self.errors[index],
            root_correlation=correlation_root(correlation),
            data=self.data[index],
        )


def save_posterior(posterior: Posterior, path: str | Path) -> None:
    """Write the posterior to a compressed .npz file."""
    np.savez_compressed(path, **asdict(posterior))


def load_posterior(path: str | Path) -> Posterior:
    """Read a posterior that `save_posterior` wrote; ValueError if the file lacks a field."""
    with np.load(path, allow_pickle=False) as arrays:
        values = {}
        for field in fields(Posterior):
            if field.name not in arrays:
                problem = f"posterior={str(path)!r} lacks {field.name!r}"
                raise ValueError(f"{problem}; fit it again with bayes.fit_bayes")
            values[field.name] = arrays[field.name]
    values["jobs"] = tuple(str(name) for name in values["jobs"])
    values["day_minutes"] = values["day_minutes"].item()
    values["convergence"] = Convergence(*values["convergence"].tolist())
    return Posterior(**values)


def data_hashes(traces: Traces) -> np.ndarray:
    """SHA-256 of each job's name and counts on the training days, shape (jobs,)."""
    days = np.ascontiguousarray(traces.train[:, 0].swapaxes(0, 1))
    texts = [
        f"{name} {counts.shape} ".encode() + counts.tobytes()
        for name, counts in zip(traces.names, days)
    ]
    return np.array([hashlib.sha256(text).hexdigest() for text in texts])


def correlation_root(correlation: np.ndarray) -> np.ndarray:
    """A matrix A with A A' = `correlation`.

    Negative eigenvalues are set to 0, and the diagonal of A A' is rescaled to 1.
    """
    # `Bayes._errors` skips its multiplication only for an exact identity.
    if (correlation == np.eye(len(correlation))).all():
        return correlation
    values, vectors = np.linalg.eigh(correlation)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    return factor / np.sqrt((factor**2).sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bayes(Forecaster):
    """Sample paths, one posterior draw each, which also fill past minutes without a count."""

    posterior: Posterior

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        posterior = self.posterior
        rng = self.rng()
        jobs = len(self.jobs)
        unit = posterior.unit[:, None].astype(np.float32)
        shape = posterior.shape[:, self.minutes_ahead(-self.counts.shape[1], horizon)]
        z = root(self.counts) / unit - shape[:, :-horizon]  # (jobs, past minutes)
        start, known = simulation_start(z, posterior.off_shape, rng.standard_normal((jobs, n)))
        steps = len(known) + horizon
        shape = shape[:, -steps - CONTEXT_MINUTES :].astype(np.float32)  # (jobs, lags + steps)

        draws = posterior.draws
        rows = rng.integers(draws, size=n) if n < draws else np.arange(n) % draws
        weights = posterior.coefficients[rows].astype(np.float32)  # (n, jobs, features)
        of_lags = weights[..., :CONTEXT_MINUTES].transpose(2, 1, 0)  # (lags, jobs, n)
        of_lags = np.ascontiguousarray(of_lags)
        of_shape = weights[..., CONTEXT_MINUTES:-1].transpose(1, 2, 0)  # (jobs, lags + 1, n)
        offset = np.matmul(windows(shape - 1, CONTEXT_MINUTES + 1), of_shape)  # (jobs, steps, n)
        offset = offset.transpose(1, 0, 2) + weights[..., -1].T
        log_spread = posterior.log_spread[rows].T.astype(np.float32)  # (jobs, n)
        follow = posterior.follow[rows].T.astype(np.float32)
        errors = self._errors(rng, steps, n)

        path = np.empty((CONTEXT_MINUTES + steps, jobs, n), dtype=np.float32)
        path[:CONTEXT_MINUTES] = start
        recent = np.where(np.isnan(self.counts), 0, self.counts).max(axis=1)
        limit = np.maximum(LIMIT_FACTOR * np.maximum(posterior.most, recent), MIN_LIMIT)
        low = root(0) / unit - shape[:, CONTEXT_MINUTES:]  # (jobs, steps)
        high = root(limit[:, None]) / unit - shape[:, CONTEXT_MINUTES:]
        for step in range(steps):
            past = path[step : step + CONTEXT_MINUTES]
            change = log_change(past[-RECENT_MINUTES - 1 :], axis=0)
            error = spread_of(log_spread, follow, change, unit) * errors[step]
            z_next = np.einsum("ljn,ljn->jn", of_lags, past) + offset[step] + error
            z_next = np.clip(z_next, low[:, step, None], high[:, step, None])
            if step < len(known):
                counted = known[step][:, None]
                z_next = np.where(np.isnan(counted), z_next, counted)
            path[CONTEXT_MINUTES + step] = z_next
        future = path[-horizon:].transpose(1, 2, 0) + shape[:, None, -horizon:]
        return from_root(future * unit[:, :, None])

    def _errors(self, rng, steps: int, n: int) -> np.ndarray:
        """Random standardised errors e, correlated between jobs, shape (steps, jobs, n)."""
        jobs = len(self.jobs)
        normal = rng.standard_normal((steps, jobs, n), dtype=np.float32)
        if (self.posterior.root_correlation != np.eye(jobs)).any():
            normal = np.matmul(self.posterior.root_correlation.astype(np.float32), normal)
        first, second = NORMAL_GRID[:2]
        position = (np.clip(normal, first, NORMAL_GRID[-1]) - first) / (second - first)
        column = np.rint(position).astype(np.int32)
        return self.posterior.errors.astype(np.float32)[np.arange(jobs)[:, None], column]


def bayes_forecaster(
    posterior: Posterior, *, seed: int = 0, recalibrate: bool = True
) -> Forecaster:
    """A forecaster for `posterior.jobs`, with recalibrated tails (`conformal`) if `recalibrate`."""
    forecaster = Bayes(
        jobs=posterior.jobs, seed=seed, day_minutes=posterior.day_minutes, posterior=posterior
    )
    return recalibrated(forecaster) if recalibrate else forecaster


def posterior_of_jobs(traces: Traces, posterior: Posterior | str | Path) -> Posterior:
    """Select the jobs of `traces` from a posterior.

    Raises ValueError if a job is missing or was fitted to other counts.
    """
    fitted = posterior if isinstance(posterior, Posterior) else load_posterior(posterior)
    selected = fitted.select(traces.names)
    for name, fitted_to, own in zip(traces.names, selected.data, data_hashes(traces)):
        if fitted_to != own:
            problem = f"the posterior of job {name!r} was fitted to other training days"
            raise ValueError(f"{problem}; fit it to these, or use none")
    return selected


@register("bayes")
def bayes(
    traces: Traces,
    *,
    seed: int = 0,
    posterior: Posterior | str | Path | None = None,
    recalibrate: bool = True,
) -> Forecaster:
    """A Bayesian forecaster for the jobs of `traces`.

    `posterior` is a `Posterior` or the path of its .npz.
    Raises ValueError if `posterior` is None, has not converged, lacks a job, or was fitted to other
    counts.
    """
    if posterior is None:
        hint = "give a posterior of bayes.fit_bayes or its .npz"
        raise ValueError(f"posterior=None: the bayes forecaster is not fitted; {hint}")
    fitted = posterior_of_jobs(traces, posterior)
    if not fitted.convergence.passed:
        raise ValueError(str(fitted.convergence))
    return bayes_forecaster(fitted, seed=seed, recalibrate=recalibrate)
