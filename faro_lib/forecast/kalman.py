"""Forecasters "kalman" and "structural": a Kalman filter for the level of the root of the counts.

level[t+1] = level[t] + N(0, step),    y[t] = sqrt(x[t] + 3/8) = level[t] + profile[t] + N(0, noise)

x are the counts. This structural time series model has the variances `step` and `noise` (Durbin and
Koopman 2012, chapters 2 and 6). "kalman" has no profile. The profile of "structural" is the mean y
of the training days at each minute of the day, averaged over neighbouring minutes and multiplied by
a fitted slope. Parameters are fitted by maximum likelihood.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import numpy as np

from faro_lib.forecast.forecaster import (
    CONTEXT_MINUTES,
    HORIZON_MINUTES,
    Forecaster,
    own_days,
    register,
)
from faro_lib.forecast.regression import from_root, root, shapes_of_other_days
from faro_lib.workload import Traces

RATIOS = np.geomspace(0.01, 100, 33)  # candidates for step / noise
WIDTHS = (1, 5, 15)  # candidate widths, in minutes, of the moving average that smooths a profile
UNKNOWN = 1e12  # variance of an unknown level


class FittedLevel(NamedTuple):
    """The fitted fields of `LocalLevel`, described there."""

    step: np.ndarray
    noise: np.ndarray
    prior_level: np.ndarray
    prior_variance: np.ndarray
    profile: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalLevel(Forecaster):
    """A Kalman filter for the level of sqrt(x + 3/8) of a job's counts x; arrays are (jobs,)."""

    step: np.ndarray  # variance of the level's change per minute
    noise: np.ndarray  # variance of sqrt(x + 3/8) about level + profile
    prior_level: np.ndarray  # mean of the level before the first minute
    prior_variance: np.ndarray
    level: np.ndarray  # mean of the level in the coming minute
    variance: np.ndarray  # variance of the level in the coming minute
    # Expected sqrt(x + 3/8) - level at each minute of the day, shape (jobs, day_minutes).
    profile: np.ndarray

    def start(self, minute_of_day: int = 0) -> Self:
        return replace(
            Forecaster.start(self, minute_of_day),
            level=self.prior_level,
            variance=self.prior_variance,
        )

    def forget(self, jobs: np.ndarray) -> Self:
        return replace(self, variance=np.where(jobs, UNKNOWN, self.variance))

    def update(self, counts) -> Self:
        later = Forecaster.update(self, counts)
        # The counts are of self.minute_of_day, the coming minute of `self` and not of `later`.
        y = root(later.counts[:, -1]) - self.profile[:, self.minute_of_day]
        observed = np.isfinite(y)
        gain = np.where(observed, self.variance / (self.variance + self.noise), 0.0)
        level = self.level + gain * np.where(observed, y - self.level, 0.0)
        # While counts are missing, the variance stops growing near CONTEXT_MINUTES x step, to keep
        # forecasts usable.
        step = np.where(observed | (self.variance < CONTEXT_MINUTES * self.step), self.step, 0.0)
        return replace(later, level=level, variance=self.variance * (1 - gain) + step)

    def known(self) -> np.ndarray:
        return self.variance < UNKNOWN / 2

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        known = self.known()
        self.check_any_known(known)
        # A job without counts gets the mean level of the other jobs. Half that mean is the level's
        # standard deviation.
        pooled = self.level[known].mean()
        level = np.where(known, self.level, pooled)
        variance = np.where(known, self.variance, (pooled / 2) ** 2)
        rng = self.rng()
        shape = (len(self.jobs), n, horizon)
        # A random walk from `level`: its first step is the error of `level`, and the others are
        # changes of the level.
        walk = rng.standard_normal(shape) * np.sqrt(self.step)[:, None, None]
        walk[:, :, 0] = rng.standard_normal(shape[:2]) * np.sqrt(variance)[:, None]
        errors = rng.standard_normal(shape) * np.sqrt(self.noise)[:, None, None]
        profile = self.profile[:, None, self.minutes_ahead(0, horizon)]
        return from_root(level[:, None, None] + profile + walk.cumsum(axis=2) + errors)


@register("kalman")
def kalman(traces: Traces, *, seed: int = 0) -> LocalLevel:
    """Fit "kalman" by maximum likelihood over step / noise in RATIOS (noise in closed form)."""
    return _fitted(traces, seed, widths=())


@register("structural")
def structural(traces: Traces, *, seed: int = 0) -> LocalLevel:
    """Fit "structural" by maximum likelihood over step / noise in RATIOS and widths in WIDTHS.

    In the fit, a day's profile is the mean of the *other* days. For given step / noise and width,
    the noise and the slope (the factor on the profile) have closed forms. The slope is in [0, 1].
    It is 0 if there is only one day.
    """
    return _fitted(traces, seed, WIDTHS)


def _fitted(traces: Traces, seed: int, widths: tuple[int, ...]) -> LocalLevel:
    """Fit each group of jobs with the same training days. Keep the order of the traces' jobs."""
    groups = own_days(traces)
    order = np.argsort(np.concatenate([jobs for jobs, _ in groups]))
    fits = [_fit_days(counts, widths) for _, counts in groups]
    fit = FittedLevel(*(np.concatenate(parts)[order] for parts in zip(*fits)))
    return _local_level(traces.names, fit, seed=seed)


def _fit_days(counts: np.ndarray, widths: tuple[int, ...]) -> FittedLevel:
    """Fit counts (days, samples, jobs, minutes). Without `widths`, the profile is 0.

    The fit uses all samples of a day. Forecasts use the profile of sample 0, because evaluations
    use sample 0 only.
    """
    from scipy.ndimage import uniform_filter1d

    y = root(counts)
    jobs = np.arange(counts.shape[2])
    # For the fit, each day has the mean of the other days, in the shape of y.
    for_fit = np.stack([shapes_of_other_days(of_days) for of_days in y.swapaxes(0, 1)], axis=1)
    for_forecasts = y[:, 0].mean(axis=0)  # (jobs, minutes)
    smooth = partial(uniform_filter1d, mode="wrap")  # averages wrap around midnight
    fit_profiles = [smooth(for_fit, width) for width in widths]
    forecast_profiles = [smooth(for_forecasts, width) for width in widths]
    if not widths:
        fit_profiles = [np.zeros_like(for_fit)]
        forecast_profiles = [np.zeros_like(for_forecasts)]
    fits = np.array(
        [[most_likely(y, profile, ratio) for ratio in RATIOS] for profile in fit_profiles]
    )
    # Each has the shape (profiles, ratios, jobs).
    likelihood, slopes, noises = np.moveaxis(fits, 2, 0)
    best = likelihood.reshape(-1, len(jobs)).argmax(axis=0)
    candidate, ratio = np.unravel_index(best, likelihood.shape[:2])  # indices, (jobs,) each
    slope = slopes[candidate, ratio, jobs]
    noise = noises[candidate, ratio, jobs]
    profile = slope[:, None] * np.stack(forecast_profiles)[candidate, jobs]
    residual = y - profile  # level + noise
    return FittedLevel(
        step=noise * RATIOS[ratio],
        noise=noise,
        prior_level=residual.mean(axis=(0, 1, 3)),
        prior_variance=residual.var(axis=(0, 1, 3)) + 1e-6,  # positive for a constant trace, too
        profile=profile,
    )


def untrained(jobs: tuple[str, ...], *, day_minutes: int = 360, **options) -> LocalLevel:
    """The forecaster "kalman" without training days.

    `sample` raises a ValueError until at least one job has a count. The noise is 1/4, the variance
    of the root of a Poisson count. The step is 1: at 900 requests per minute, the rate changes by 7
    % per minute (one standard deviation).

    >>> untrained(("a",)).update([100.0]).sample(1, 1000).mean().round() > 50
    np.True_
    """
    ones = np.ones(len(jobs))
    fit = FittedLevel(
        step=ones,
        noise=ones / 4,
        prior_level=0 * ones,
        prior_variance=UNKNOWN * ones,
        profile=np.zeros((len(jobs), day_minutes)),
    )
    return _local_level(jobs, fit, **options)


def _local_level(jobs: tuple[str, ...], fit: FittedLevel, **options) -> LocalLevel:
    return LocalLevel(
        jobs=jobs,
        **fit._asdict(),
        level=fit.prior_level,
        variance=fit.prior_variance,
        day_minutes=fit.profile.shape[-1],
        **options,
    )


def most_likely(
    y: np.ndarray, profile: np.ndarray, ratio: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest likelihood for `ratio` = step / noise: (its log up to a constant, slope, noise).

    y and `profile` have shape (days, samples, jobs, minutes), each result (jobs,). One Kalman
    filter predicts y, and another predicts `profile`. Variances are in units of `noise`. The slope
    is from a regression of the prediction errors of y on those of `profile` (generalised least
    squares). The first count of a day only sets the initial level.
    """
    days, samples, jobs, minutes = y.shape
    series = np.stack([y, profile])
    # One variance for all series, because no count is missing: the noise of the first count (1)
    # plus one step (ratio).
    level = series[..., 0]
    variance = 1.0 + ratio
    products = np.zeros((2, 2, jobs))  # products of errors; index 0 is y, 1 the profile
    log_variances = 0.0
    for t in range(1, minutes):
        error = series[..., t] - level
        error_variance = variance + 1
        products += np.einsum("adsj,bdsj->abj", error, error) / error_variance
        log_variances += np.log(error_variance)
        gain = variance / error_variance
        level = level + gain * error
        variance = variance * (1 - gain) + ratio
    predicted = days * samples * (minutes - 1)
    (yy, yp), (_, pp) = products
    slope = np.clip(yp / np.maximum(pp, 1e-12), 0, 1)
    squares = yy - 2 * slope * yp + slope**2 * pp
    noise = np.maximum(squares / predicted, 1e-9)  # a constant trace has no noise
    log_likelihood = -0.5 * (predicted * np.log(noise) + days * samples * log_variances)
    return log_likelihood, slope, noise
