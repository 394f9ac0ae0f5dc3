"""Forecaster "auto", the command line's default: a mixture of forecasters, weighted for each job by recent error (CRPS)."""

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

HALF_LIFE_MINUTES = (
    10  # time in which a past loss's weight halves; scores on training days are similar for 5 to 40
)
SHARPNESS = 4.0  # strength of `Mixture`'s preference for small losses; scores on training days are similar for 2 to 8
OUTLIER_FACTOR, OUTLIER_DEVIATIONS = (
    3.0,
    6.0,
)  # an outlier misses the forecast by this factor and this many Poisson SDs
BACKTEST_ORIGINS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture(Forecaster):
    """Sample paths drawn from several forecasters (members), in proportion to a weight w[m] per member and job.

    w[m] = p[m] exp(-SHARPNESS (L[m] / min L - 1)), scaled to the sum 1.

    L[m] is the loss of member m, and min L the smallest loss of all members. The loss is the CRPS for the next minute
    plus the CRPS for the mean of the next HORIZON_MINUTES minutes, averaged over past forecasts with exponential decay.
    The prior weight p[m] is 1, except for the Bayesian forecaster, where it is the number of other members.
    Path i of a job is path i of one member, chosen at random. Jobs with the same member in path i stay correlated.

    An outlier is a count far above or below its forecast. It is accepted if the last CONTEXT_MINUTES had an outlier in
    the same direction. Otherwise it is treated as missing. If the minute before an accepted outlier has no accepted
    count, a shift of the job's load is assumed. The job's losses and the members' estimates of its level are reset.
    """

    names: tuple[str, ...]  # names of the members
    members: tuple[Forecaster, ...]
    backtest: (
        np.ndarray
    )  # initial `score`: loss of each member in the backtest, (members, jobs); 1 without a backtest
    score: np.ndarray  # current loss of each member, shape (members, jobs); NaN just after a shift
    outlier_at: (
        np.ndarray
    )  # minutes_seen at the last outlier below and above the forecast, (2, jobs); -inf = none
    paths: (
        np.ndarray
    )  # latest sample paths, from the next minute on, (members, jobs, samples, HORIZON_MINUTES)
    means: np.ndarray  # mean of each path over its minutes, newest forecast first, (forecasts, members, jobs, samples)

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
        score = np.maximum(
            score, 1e-9
        )  # avoids a division by 0: a member that is always exact has CRPS 0
        prior = np.array([len(self.names) - 1 if name == "bayes" else 1 for name in self.names])[
            :, None
        ]
        weights = prior * np.exp(-SHARPNESS * (score / score.min(axis=0) - 1))
        return weights / weights.sum(axis=0)

    def update(self, counts) -> Self:
        counts = self.checked(counts)
        outlier = self._outliers(counts)
        recent = self.minutes_seen - self.outlier_at <= CONTEXT_MINUTES
        accepted = np.where((outlier & ~recent).any(axis=0), np.nan, counts)
        shifted = (outlier & recent).any(axis=0) & np.isnan(self.counts[:, -1])
        later = replace(
            Forecaster.update(self, accepted),
            members=tuple(member.forget(shifted).update(accepted) for member in self.members),
            outlier_at=np.where(outlier, self.minutes_seen, self.outlier_at),
        )
        paths = (
            later.paths
            if np.isnan(later.counts).all()
            else later._member_paths(HORIZON_MINUTES, TRACKED_SAMPLES)
        )
        means = np.concatenate([paths.mean(axis=-1)[None], self.means[:-1]])
        terms = crps_terms(
            self.paths[..., 0, None], np.broadcast_to(accepted, self.score.shape)[..., None]
        )[..., 0]
        terms[:, shifted] = np.nan  # `_decayed` ignores NaN
        # `0 *` makes `mean` NaN if the forecast was made just after a missing count, because a shift may begin there.
        mean = (
            later.counts[:, -HORIZON_MINUTES:].mean(axis=1)
            + 0 * later.counts[:, -HORIZON_MINUTES - 1]
        )
        of_mean = crps_terms(
            self.means[-1][..., None], np.broadcast_to(mean, self.score.shape)[..., None]
        )[..., 0]
        score = _decayed(_decayed(np.where(shifted, np.nan, self.score), 2 * terms), 2 * of_mean)
        return replace(later, score=score, paths=paths, means=means)

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        tracked = (
            n == TRACKED_SAMPLES and horizon <= HORIZON_MINUTES and not np.isnan(self.paths).any()
        )
        paths = self.paths[..., :horizon] if tracked else self._member_paths(horizon, n)
        # Stratified sampling: `quantile[i]` selects the member of path i from the cumulative weights of each job.
        quantile = (self.rng().permutation(n) + 0.5) / n
        member = (
            (quantile[:, None, None] > self.weights().cumsum(axis=0)).sum(axis=1).T
        )  # (jobs, n)
        member = np.minimum(member, len(self.members) - 1)
        return paths[member, np.arange(len(self.jobs))[:, None], np.arange(n)]

    def mean(self, horizon: int = HORIZON_MINUTES) -> np.ndarray:
        means = np.stack([member.mean(horizon) for member in self.members])
        return (self.weights()[:, :, None] * means).sum(axis=0)

    def table(self):
        """A DataFrame with a row per job and member: columns job, forecaster (the member), backtest_crps and weight."""
        import pandas as pd

        jobs, names = np.repeat(self.jobs, len(self.names)), np.tile(self.names, len(self.jobs))
        columns = {"backtest_crps": self.backtest.T.ravel() / 2, "weight": self.weights().T.ravel()}
        return pd.DataFrame({"job": jobs, "forecaster": names} | columns)

    def _member_paths(self, horizon: int, n: int) -> np.ndarray:
        return np.stack([member.sample(horizon, n).astype(np.float32) for member in self.members])

    def _outliers(self, counts: np.ndarray) -> np.ndarray:
        """Whether each job's count is far below (row 0) or far above (row 1) its forecast, bool (2, jobs)."""
        known = ~np.isnan(self.counts).all(axis=1) & ~np.isnan(self.paths).any(axis=(0, 2, 3))
        expected = (self.weights() * self.paths[..., 0].mean(axis=-1)).sum(axis=0)
        deviations = 2 * (
            root(counts) - root(expected)
        )  # the root of a Poisson count has standard deviation 1/2
        far_below = (counts * OUTLIER_FACTOR < expected) & (deviations < -OUTLIER_DEVIATIONS)
        far_above = (counts > expected * OUTLIER_FACTOR) & (deviations > OUTLIER_DEVIATIONS)
        return np.stack([far_below, far_above]) & known


def _decayed(mean: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The exponentially decaying average `mean`, updated with `new` (NaN = no value)."""
    decay = 0.5 ** (
        0.5 / HALF_LIFE_MINUTES
    )  # half a minute per call, as `Mixture.update` makes two calls a minute
    mean = np.where(np.isnan(mean), new, mean)
    return np.where(np.isnan(new), mean, decay * mean + (1 - decay) * new)


@register("auto")
def auto(
    traces: Traces, *, seed: int = 0, posterior: Posterior | str | Path | None = None
) -> Forecaster:
    """A recalibrated mixture of forecasters. Without training days, its members are "kalman" and "poisson".

    The initial weights come from a backtest on the last training day. The backtest fits members to the earlier days, or
    to that day if it is the only one. A converged `posterior` adds the Bayesian forecaster, which is not refitted.
    """
    if posterior is not None:
        posterior = posterior_of_jobs(traces, posterior)
        if not posterior.convergence.passed:
            log.warning(posterior.convergence)
            posterior = None
    names, members = _members(traces, seed, posterior)
    jobs = len(traces.jobs)
    backtest = np.ones((len(members), jobs))
    if traces.days:
        tried = (
            members
            if traces.days == 1
            else _members(traces.until(traces.days), seed, posterior, names)[1]
        )
        backtest = np.stack(
            [backtest_terms(member, traces.train[-1, 0]).mean(axis=0) for member in tried]
        )
    tracked = (len(members), jobs, TRACKED_SAMPLES, HORIZON_MINUTES)
    mixture = Mixture(
        jobs=traces.names,
        seed=seed,
        day_minutes=members[0].day_minutes,
        names=names,
        members=members,
        backtest=backtest,
        score=backtest,
        outlier_at=np.full((2, jobs), -np.inf),
        paths=np.full(tracked, np.nan, np.float32),
        means=np.full((HORIZON_MINUTES, *tracked[:3]), np.nan, np.float32),
    )
    return recalibrated(mixture)


def _members(traces: Traces, seed: int, posterior, names: tuple[str, ...] | None = None):
    """The members' names and fitted forecasters. With one training day, "seasonal" is used only if it is in `names`."""
    if not traces.days:
        jobs, minutes = traces.names, traces.evaluation.shape[-1]
        level = (
            untrained(jobs, seed=seed, day_minutes=minutes),
            untrained_poisson(jobs, seed=seed, day_minutes=minutes),
        )
        return ("kalman", "poisson"), level
    fits = {
        "ar": pooled_ar,
        "persistence": persistence,
        "poisson": poisson,
        "structural": structural,
    }
    if traces.days > 1 or (
        names and "seasonal" in names
    ):  # a single day does not show what repeats daily
        fits["seasonal"] = seasonal
    members = {name: fit(traces, seed=seed) for name, fit in fits.items()}
    if posterior is not None:
        members["bayes"] = bayes_forecaster(posterior, seed=seed, recalibrate=False)
    return tuple(members), tuple(members.values())


def backtest_terms(forecaster: Forecaster, day_counts) -> np.ndarray:
    """Backtest a forecaster on one day's counts (jobs, minutes) and return its errors, shape (forecasts, jobs).

    An error is the CRPS of the next minute plus the CRPS of the mean of the next HORIZON_MINUTES, in requests/minute.
    """
    counts = np.asarray(day_counts, dtype=float)
    last = counts.shape[1] - HORIZON_MINUTES
    origins = set(
        np.linspace(CONTEXT_MINUTES, last, min(BACKTEST_ORIGINS, last)).astype(int).tolist()
    )
    current, terms = forecaster.start(), []
    for minute in range(last + 1):
        if minute in origins:
            samples = current.sample(HORIZON_MINUTES, TRACKED_SAMPLES)
            truth = counts[:, minute : minute + HORIZON_MINUTES]
            first = crps_terms(samples[None, :, :, :1], truth[None, :, :1])
            mean = crps_terms(
                samples.mean(axis=-1)[None, :, :, None], truth.mean(axis=-1)[None, :, None]
            )
            terms.append((first + mean)[0, :, 0])
        current = current.update(counts[:, minute])
    return np.stack(terms)
