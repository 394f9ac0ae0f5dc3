"""Forecaster "auto": a mixture of forecasters, weighted for each job by recent error (CRPS)."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from faro_lib.forecast.autoregression import pooled_ar
from faro_lib.forecast.conformal import TRACKED_SAMPLES, recalibrated
from faro_lib.forecast.forecaster import CONTEXT_MINUTES, HORIZON_MINUTES, Forecaster, register
from faro_lib.forecast.kalman import structural, untrained
from faro_lib.forecast.naive import persistence, seasonal
from faro_lib.forecast.poisson import poisson, untrained_poisson
from faro_lib.forecast.posterior import Posterior, bayes_forecaster, posterior_of_jobs
from faro_lib.forecast.regression import root
from faro_lib.forecast.scores import crps_terms
from faro_lib.workload import Traces

log = logging.getLogger(__name__)

# Time in which a past loss's weight halves; scores on training days are similar for 5 to 40.
HALF_LIFE_MINUTES = 10
# Strength of the preference for small losses; scores on training days are similar for 2 to 8.
SHARPNESS = 4.0
# An outlier misses the forecast by this factor and by this many standard deviations (Poisson).
OUTLIER_FACTOR = 3.0
OUTLIER_DEVIATIONS = 6.0
BACKTEST_ORIGINS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture(Forecaster):
    """Sample paths drawn from several forecasters (members), with a weight w[m] per member and job.

    w[m] = p[m] exp(-SHARPNESS (L[m] / min L - 1)), scaled to the sum 1.

    L[m] is the loss of member m, and min L the smallest loss of all members. The loss is the CRPS
    for the next minute plus the CRPS for the mean of the next HORIZON_MINUTES minutes, averaged
    over past forecasts with exponential decay. The prior weight p[m] is 1, except for the Bayesian
    forecaster, where it is the number of other members. Path i of a job is path i of one member,
    chosen at random. Jobs with the same member in path i stay correlated.

    An outlier is a count far above or below its forecast. It is accepted if the last
    CONTEXT_MINUTES had an outlier in the same direction. Otherwise it is treated as missing. If the
    minute before an accepted outlier has no accepted count, a shift of the job's load is assumed.
    The job's losses and the members' estimates of its level are reset.
    """

    names: tuple[str, ...]  # names of the members
    members: tuple[Forecaster, ...]
    # Initial `score`: loss of each member in the backtest, (members, jobs); 1 without a backtest.
    backtest: np.ndarray
    score: np.ndarray  # current loss of each member, shape (members, jobs); NaN just after a shift
    # minutes_seen at the last outlier below and above the forecast, (2, jobs); -inf = none.
    outlier_at: np.ndarray
    # Latest sample paths, from the next minute on, (members, jobs, samples, HORIZON_MINUTES).
    paths: np.ndarray
    # Mean of each path over its minutes, newest first, (forecasts, members, jobs, samples).
    means: np.ndarray

    def start(self, minute_of_day: int = 0) -> Self:
        return replace(
            Forecaster.start(self, minute_of_day),
            members=tuple(member.start(minute_of_day) for member in self.members),
            score=self.backtest,
            outlier_at=np.full_like(self.outlier_at, -np.inf),
            paths=np.full_like(self.paths, np.nan),
            means=np.full_like(self.means, np.nan),
        )

    def weights(self) -> np.ndarray:
        """Weight of each member, shape (members, jobs); sums to 1 for each job."""
        score = np.where(np.isnan(self.score), 1.0, self.score)
        # A member that is always exact has CRPS 0.
        score = np.maximum(score, 1e-9)
        others = len(self.names) - 1
        prior = np.array([others if name == "bayes" else 1 for name in self.names])
        weights = prior[:, None] * np.exp(-SHARPNESS * (score / score.min(axis=0) - 1))
        return weights / weights.sum(axis=0)

    def update(self, counts) -> Self:
        counts = self.checked(counts)
        outlier = self._outliers(counts)  # (2, jobs)
        repeated = outlier & (self.minutes_seen - self.outlier_at <= CONTEXT_MINUTES)
        rejected = (outlier & ~repeated).any(axis=0)
        shifted = repeated.any(axis=0) & np.isnan(self.counts[:, -1])
        accepted = np.where(rejected, np.nan, counts)
        later = replace(
            Forecaster.update(self, accepted),
            members=tuple(member.forget(shifted).update(accepted) for member in self.members),
            outlier_at=np.where(outlier, self.minutes_seen, self.outlier_at),
        )
        paths = later.paths
        if not np.isnan(later.counts).all():
            paths = later._member_paths(HORIZON_MINUTES, TRACKED_SAMPLES)
        return replace(
            later,
            score=self._updated_score(later.counts, shifted),
            paths=paths,
            means=np.concatenate([paths.mean(axis=-1)[None], self.means[:-1]]),
        )

    def _updated_score(self, counts: np.ndarray, shifted: np.ndarray) -> np.ndarray:
        """`score` after the last minute of `counts` (jobs, minutes), reset for `shifted` jobs."""
        # The oldest stored forecast was made before the last HORIZON_MINUTES minutes. Its mean is
        # not scored if it was made just after a missing count, because a shift may begin there.
        usable = ~np.isnan(counts[:, -HORIZON_MINUTES - 1])
        recent_mean = np.where(usable, counts[:, -HORIZON_MINUTES:].mean(axis=1), np.nan)
        next_minute = _losses(self.paths[..., 0], np.where(shifted, np.nan, counts[:, -1]))
        score = np.where(shifted, np.nan, self.score)
        score = _decayed(score, 2 * next_minute)
        return _decayed(score, 2 * _losses(self.means[-1], recent_mean))

    def known(self) -> np.ndarray:
        return np.all([member.known() for member in self.members], axis=0)

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        tracked = n == TRACKED_SAMPLES and horizon <= HORIZON_MINUTES
        if tracked and not np.isnan(self.paths).any():
            paths = self.paths[..., :horizon]  # (members, jobs, n, horizon)
        else:
            paths = self._member_paths(horizon, n)
        # Stratified sampling: `quantile[i]` selects the member of path i from the cumulative
        # weights of each job.
        quantile = (self.rng().permutation(n) + 0.5) / n
        cumulative = self.weights().cumsum(axis=0)  # (members, jobs)
        member = (quantile[:, None, None] > cumulative).sum(axis=1).T  # (jobs, n)
        # The last cumulative weight may be rounded to less than 1.
        member = np.minimum(member, len(self.members) - 1)
        return paths[member, np.arange(len(self.jobs))[:, None], np.arange(n)]

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        means = np.stack([member.mean(horizon) for member in self.members])
        return (self.weights()[:, :, None] * means).sum(axis=0)

    def table(self):
        """A DataFrame with the columns job, forecaster (the member), backtest_crps and weight."""
        import pandas as pd

        return pd.DataFrame(
            {
                "job": np.repeat(self.jobs, len(self.names)),
                "forecaster": np.tile(self.names, len(self.jobs)),
                "backtest_crps": self.backtest.T.ravel() / 2,
                "weight": self.weights().T.ravel(),
            }
        )

    def _member_paths(self, horizon: int, n: int) -> np.ndarray:
        return np.stack([member.sample(horizon, n).astype(np.float32) for member in self.members])

    def _outliers(self, counts: np.ndarray) -> np.ndarray:
        """Whether each count is far below (row 0) or far above (row 1) its forecast, (2, jobs)."""
        known = ~np.isnan(self.counts).all(axis=1) & ~np.isnan(self.paths).any(axis=(0, 2, 3))
        expected = (self.weights() * self.paths[..., 0].mean(axis=-1)).sum(axis=0)
        # The root of a Poisson count has the standard deviation 1/2.
        deviations = 2 * (root(counts) - root(expected))
        far_below = (counts * OUTLIER_FACTOR < expected) & (deviations < -OUTLIER_DEVIATIONS)
        far_above = (counts > expected * OUTLIER_FACTOR) & (deviations > OUTLIER_DEVIATIONS)
        return np.stack([far_below, far_above]) & known


def _losses(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """CRPS (members, jobs) of `samples` (members, jobs, samples) for `truth` (jobs,)."""
    truth = np.broadcast_to(truth, samples.shape[:2])
    return crps_terms(samples[..., None], truth[..., None])[..., 0]


def _decayed(mean: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The exponentially decaying average `mean`, updated with `new` (NaN = no value)."""
    # Half a minute per call, because `Mixture.update` makes two calls a minute.
    decay = 0.5 ** (0.5 / HALF_LIFE_MINUTES)
    mean = np.where(np.isnan(mean), new, mean)
    return np.where(np.isnan(new), mean, decay * mean + (1 - decay) * new)


@register("auto")
def auto(
    traces: Traces, *, seed: int = 0, posterior: Posterior | str | Path | None = None
) -> Forecaster:
    """A recalibrated mixture of forecasters.

    Without training days, its members are "kalman" and "poisson". The initial weights come from a
    backtest on the last training day. The backtest fits members to the earlier days, or to that day
    if it is the only one. A converged `posterior` adds the Bayesian forecaster, which is not
    refitted.
    """
    if posterior is not None:
        posterior = posterior_of_jobs(traces, posterior)
        if not posterior.convergence.passed:
            log.warning(posterior.convergence)
            posterior = None
    fitted = _members(traces, seed, posterior)
    members = tuple(fitted.values())
    jobs = len(traces.jobs)
    backtest = np.ones((len(members), jobs))
    if traces.days:
        tried = fitted
        if traces.days > 1:
            tried = _members(traces.until(traces.days), seed, posterior, with_seasonal=True)
        last_day = traces.train[-1, 0]  # (jobs, minutes)
        backtest = np.stack(
            [backtest_terms(member, last_day).mean(axis=0) for member in tried.values()]
        )
    tracked = (len(members), jobs, TRACKED_SAMPLES, HORIZON_MINUTES)
    mixture = Mixture(
        jobs=traces.names,
        seed=seed,
        day_minutes=members[0].day_minutes,
        names=tuple(fitted),
        members=members,
        backtest=backtest,
        score=backtest,
        outlier_at=np.full((2, jobs), -np.inf),
        paths=np.full(tracked, np.nan, np.float32),
        means=np.full((HORIZON_MINUTES, *tracked[:3]), np.nan, np.float32),
    )
    return recalibrated(mixture)


def _members(
    traces: Traces, seed: int, posterior: Posterior | None, with_seasonal: bool = False
) -> dict[str, Forecaster]:
    """Name -> fitted forecaster. One training day gets "seasonal" only if `with_seasonal`."""
    if not traces.days:
        options = {"seed": seed, "day_minutes": traces.evaluation.shape[-1]}
        return {
            "kalman": untrained(traces.names, **options),
            "poisson": untrained_poisson(traces.names, **options),
        }
    members: dict[str, Forecaster] = {
        "ar": pooled_ar(traces, seed=seed),
        "persistence": persistence(traces, seed=seed),
        "poisson": poisson(traces, seed=seed),
        "structural": structural(traces, seed=seed),
    }
    # A single day does not show what repeats daily.
    if traces.days > 1 or with_seasonal:
        members["seasonal"] = seasonal(traces, seed=seed)
    if posterior is not None:
        members["bayes"] = bayes_forecaster(posterior, seed=seed, recalibrate=False)
    return members


def backtest_terms(forecaster: Forecaster, day_counts) -> np.ndarray:
    """Errors of a forecaster on one day's counts (jobs, minutes), shape (forecasts, jobs).

    An error is the CRPS of the next minute plus the CRPS of the mean of the next HORIZON_MINUTES,
    in requests/minute.
    """
    counts = np.asarray(day_counts, dtype=float)
    last = counts.shape[1] - HORIZON_MINUTES
    origins = np.linspace(CONTEXT_MINUTES, last, min(BACKTEST_ORIGINS, last)).astype(int)
    current = forecaster.start()
    terms = []
    for minute in range(last + 1):
        if minute in origins:
            samples = current.sample(HORIZON_MINUTES, TRACKED_SAMPLES)
            truth = counts[:, minute : minute + HORIZON_MINUTES]
            first = _losses(samples[None, :, :, 0], truth[:, 0])
            mean = _losses(samples.mean(axis=-1)[None], truth.mean(axis=-1))
            terms.append((first + mean)[0])
        current = current.update(counts[:, minute])
    return np.stack(terms)
