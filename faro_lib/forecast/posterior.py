"""The Bayesian forecaster online: posterior draws as arrays, paths in closed form; no PyMC."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.forecast.autoregression import context
from faro_lib.forecast.conformal import recalibrated
from faro_lib.forecast.forecaster import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, check_horizon, register, reindex
from faro_lib.forecast.regression import RECENT_MIN, from_root, movement, root
from faro_lib.workload import Traces

# Student-t errors are a function of a normal (a Gaussian copula over jobs): its table, in steps of the normal.
NORMAL_GRID = np.linspace(-4.5, 4.5, 361)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """What the online forecaster needs to know: arrays only, so that it is stored without pickles.

    Attributes
    ----------
    jobs : names; day_minutes : length of a day.
    unit : level of each job on the root scale, shape (jobs,).
    shape : day shape in units, shape (jobs, day_minutes).
    off_shape : standard deviation of y - shape, shape (jobs,): what is known before the first minute of a day.
    most : largest count of the training days, shape (jobs,).
    coefficients : shape (draws, jobs, features), features as in `regression.design`.
    log_spread, follow, nu : shape (draws, jobs).
    errors : quantiles of the standardised errors on NORMAL_GRID, shape (jobs, grid).
    root_correlation : matrix A of shape (jobs, jobs); errors of one minute are quantiles of A @ (independent normals).
    new_coefficients, new_log_spread, new_follow : the same for a job never seen, shape (draws, features), (draws,).
    new_errors : shape (grid,); new_off_shape : a number.
    new_unit, new_unit_spread : median and log standard deviation of the level of a job of which nothing is known.
    """

    jobs: tuple[str, ...]
    day_minutes: int
    unit: np.ndarray
    shape: np.ndarray
    off_shape: np.ndarray
    most: np.ndarray
    coefficients: np.ndarray
    log_spread: np.ndarray
    follow: np.ndarray
    errors: np.ndarray
    root_correlation: np.ndarray
    new_coefficients: np.ndarray
    new_log_spread: np.ndarray
    new_follow: np.ndarray
    new_errors: np.ndarray
    new_off_shape: float
    new_unit: float
    new_unit_spread: float

    def __post_init__(self):
        draws, jobs, features = self.coefficients.shape
        expected = {
            "unit": (jobs,),
            "shape": (jobs, self.day_minutes),
            "off_shape": (jobs,),
            "most": (jobs,),
            "coefficients": (draws, len(self.jobs), 2 * CONTEXT_MINUTES + 2),
            "log_spread": (draws, jobs),
            "follow": (draws, jobs),
            "errors": (jobs, len(NORMAL_GRID)),
            "root_correlation": (jobs, jobs),
            "new_coefficients": (draws, features),
            "new_log_spread": (draws,),
            "new_follow": (draws,),
            "new_errors": (len(NORMAL_GRID),),
        }
        for field, shape in expected.items():
            if getattr(self, field).shape != shape:
                raise ValueError(f"posterior: {field} has shape {getattr(self, field).shape}; expected {shape}")
            if not np.isfinite(getattr(self, field)).all():
                raise ValueError(f"posterior: {field} holds a number that is not finite; fit it again")

    @property
    def draws(self) -> int:
        return len(self.coefficients)

    def for_jobs(self, names, new_jobs: str = "error") -> Posterior:
        """The posterior of `names`: known jobs as learnt; new ones get the pooled prior if `new_jobs="pooled"`.

        A new job has a flat day at its own level, which the forecaster reads from its history.
        """
        index = reindex(names, self.jobs, new_jobs)
        new = index < 0

        def pick(known, prior, axis):
            chosen = np.take(known, index, axis=axis)
            return np.where(new.reshape([-1 if a == axis else 1 for a in range(known.ndim)]), prior, chosen)

        roots = self.root_correlation @ self.root_correlation.T
        correlation = np.where(new[:, None] | new, 0.0, roots[np.ix_(index, index)])
        correlation[np.diag_indices(len(new))] = 1.0
        return replace(
            self,
            jobs=tuple(names),
            unit=pick(self.unit, np.nan_to_num(self.new_unit), 0),
            shape=pick(self.shape, 1.0, 0),
            off_shape=pick(self.off_shape, self.new_off_shape, 0),
            most=pick(self.most, 0.0, 0),
            coefficients=pick(self.coefficients, self.new_coefficients[:, None, :], 1),
            log_spread=pick(self.log_spread, self.new_log_spread[:, None], 1),
            follow=pick(self.follow, self.new_follow[:, None], 1),
            errors=pick(self.errors, self.new_errors, 0),
            root_correlation=correlation_root(correlation),
        )


def save_posterior(posterior: Posterior, path) -> None:
    """Write the arrays to a compressed .npz."""
    arrays: dict[str, Any] = {field.name: np.asarray(getattr(posterior, field.name)) for field in fields(Posterior)}
    np.savez_compressed(path, **arrays)


def load_posterior(path) -> Posterior:
    """Read a .npz that `save_posterior` or `bayes.export_posterior` wrote."""
    if not Path(path).exists():
        raise ValueError(
            f"posterior={str(path)!r} does not exist; fit one with bayes.fit_bayes and bayes.export_posterior"
        )
    with np.load(path, allow_pickle=False) as arrays:
        missing = [field.name for field in fields(Posterior) if field.name not in arrays]
        if missing:
            raise ValueError(
                f"posterior={str(path)!r} lacks {missing[0]!r}; it was not written by bayes.export_posterior"
            )
        values = {field.name: arrays[field.name] for field in fields(Posterior)}
    values["jobs"] = tuple(str(name) for name in values["jobs"])
    for field in ("day_minutes", "new_off_shape", "new_unit", "new_unit_spread"):
        values[field] = values[field].item()
    return Posterior(**values)


def correlation_root(correlation: np.ndarray) -> np.ndarray:
    """A with A A' = the nearest correlation matrix (negative eigenvalues cut); the identity costs nothing."""
    if (correlation == np.eye(len(correlation))).all():
        return correlation
    values, vectors = np.linalg.eigh(correlation)
    root_ = vectors * np.sqrt(np.maximum(values, 0))
    return root_ / np.sqrt((root_**2).sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bayes(Forecaster):
    """Posterior predictive sample paths of the model in `regression`, one posterior draw a path.

    Missing minutes are drawn like future ones, between those that are known. A job without training days has a flat day
    at the mean level of its history.
    """

    learnt: Posterior
    fresh: np.ndarray  # shape (jobs,), True for a job without training days

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        check_horizon(horizon, n)
        learnt, rng = self.learnt, self.rng()
        jobs, first = len(self.jobs), -self.counts.shape[1]
        unit, shape = self._unit()[:, None], learnt.shape[:, self.minutes_ahead(first, horizon)]
        z = root(self.counts) / unit - shape[:, :-horizon]
        start, known = context(z, learnt.off_shape, rng.standard_normal((jobs, n)))
        steps = len(known) + horizon
        shape = shape[:, -steps - CONTEXT_MINUTES :].astype(np.float32)

        rows = rng.integers(learnt.draws, size=n) if n < learnt.draws else np.arange(n) % learnt.draws
        weights = learnt.coefficients[rows].astype(np.float32)  # (n, jobs, features)
        lags = np.ascontiguousarray(weights[..., :CONTEXT_MINUTES].transpose(2, 1, 0))  # (lags, jobs, n)
        pull = np.lib.stride_tricks.sliding_window_view(
            shape - 1, CONTEXT_MINUTES + 1, axis=1
        )  # (jobs, steps, lags + 1)
        pull = np.matmul(pull, weights[..., CONTEXT_MINUTES:-1].transpose(1, 2, 0))  # (jobs, steps, n)
        pull = pull.transpose(1, 0, 2) + weights[..., -1].T
        log_spread, follow = (a[rows].T.astype(np.float32) for a in (learnt.log_spread, learnt.follow))
        errors = self._errors(rng, steps, n)

        path = np.empty((CONTEXT_MINUTES + steps, jobs, n), dtype=np.float32)
        path[:CONTEXT_MINUTES] = start
        # Between an empty minute and twice (a new job: thrice) the most that was ever seen.
        lowest = root(0) / unit - shape[:, CONTEXT_MINUTES:]
        highest = root(self._most())[:, None] / unit - shape[:, CONTEXT_MINUTES:]
        for step in range(steps):
            past = path[step : step + CONTEXT_MINUTES]
            moved = movement(past[-RECENT_MIN - 1 :], axis=0)
            ahead = (
                np.einsum("ljn,ljn->jn", lags, past) + pull[step] + np.exp(log_spread + follow * moved) * errors[step]
            )
            ahead = np.clip(ahead, lowest[:, step, None], highest[:, step, None])
            if step < len(known):
                seen = known[step][:, None]
                ahead = np.where(np.isnan(seen), ahead, seen)
            path[CONTEXT_MINUTES + step] = ahead
        future = path[-horizon:].transpose(1, 2, 0) + shape[:, None, -horizon:]
        unknown = self.fresh & np.isnan(self.counts).all(axis=1)
        if unknown.any():  # not even its level is known
            levels = np.exp(learnt.new_unit_spread * rng.standard_normal((jobs, n, 1)))
            future = np.where(unknown[:, None, None], future * levels, future)
        return from_root(future * unit[:, :, None])

    def _errors(self, rng, steps: int, n: int) -> np.ndarray:
        """Standardised errors, shape (steps, jobs, n): each job's quantiles of normals, correlated over jobs."""
        jobs = len(self.jobs)
        normal = rng.standard_normal((steps, jobs, n), dtype=np.float32)
        if (self.learnt.root_correlation != np.eye(jobs)).any():
            normal = np.matmul(self.learnt.root_correlation.astype(np.float32), normal)
        place = (np.clip(normal, NORMAL_GRID[0], NORMAL_GRID[-1] - 1e-3) - NORMAL_GRID[0]) / (
            NORMAL_GRID[1] - NORMAL_GRID[0]
        )
        below = place.astype(np.int32)
        place -= below
        below += (np.arange(jobs, dtype=np.int32) * len(NORMAL_GRID))[None, :, None]
        table = self.learnt.errors.astype(np.float32).ravel()
        return table[below] * (1 - place) + table[below + 1] * place

    def _unit(self) -> np.ndarray:
        if not self.fresh.any():
            return self.learnt.unit
        seen = ~np.isnan(self.counts)
        own = np.where(seen, root(np.where(seen, self.counts, 0)), 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        return np.where(self.fresh & seen.any(axis=1), np.maximum(own, 1.0), self.learnt.unit)

    def _most(self) -> np.ndarray:
        recent = np.where(np.isnan(self.counts), 0, self.counts).max(axis=1)
        most = np.maximum(2 * np.maximum(self.learnt.most, recent), 100)
        return np.where(self.fresh, np.maximum(1.5 * most, np.where(recent > 0, 0, 9 * self.learnt.unit**2)), most)


def bayes_forecaster(
    posterior: Posterior, jobs=None, *, seed: int = 0, new_jobs: str = "error", recalibrate: bool = True
) -> Forecaster:
    """The online forecaster of `jobs` (names or Jobs; default: those of the posterior) at the start of a day.

    A job that the posterior does not know is an error, or with `new_jobs="pooled"` gets the pooled prior.
    `recalibrate` watches the tails as the day goes, see `conformal`.
    """
    names = posterior.jobs if jobs is None else tuple(getattr(job, "name", job) for job in jobs)
    learnt = posterior.for_jobs(names, new_jobs)
    fresh = ~np.isin(names, posterior.jobs)
    forecaster = Bayes(jobs=names, seed=seed, day_minutes=posterior.day_minutes, learnt=learnt, fresh=fresh)
    return recalibrated(forecaster) if recalibrate else forecaster


@register("bayes")
def bayes(
    traces: Traces,
    *,
    seed: int = 0,
    posterior: Posterior | str | Path | None = None,
    new_jobs: str = "error",
    recalibrate: bool = True,
) -> Forecaster:
    """The Bayesian forecaster of the jobs of `traces`; `posterior` is a fitted one or the .npz that holds it."""
    if posterior is None:
        raise ValueError(
            "posterior=None: the bayes forecaster is not fitted; give a posterior of bayes.fit_bayes or its .npz"
        )
    learnt = posterior if isinstance(posterior, Posterior) else load_posterior(posterior)
    return bayes_forecaster(learnt, traces.jobs, seed=seed, new_jobs=new_jobs, recalibrate=recalibrate)
