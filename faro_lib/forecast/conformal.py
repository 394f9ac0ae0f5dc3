"""Online recalibration: adjust the tails of sample paths to their nominal probability."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster

# Learning rate of `log_stretch`; scores are similar for 0.05 to 0.1 (published days 9 and 10).
RATE = 0.07
TAIL = 0.1  # nominal probability of each tail
MIN_LOG_STRETCH = -1.0
MAX_LOG_STRETCH = 1.5
TRACKED_SAMPLES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated(Forecaster):
    """Sample paths of `inner`, with tails stretched or shrunk until each has the probability TAIL.

    x' = median + exp(r) (x - median);  r <- r + RATE (exceeded - TAIL),

    where x is a sampled count, x' the corrected count, and r the `log_stretch` of a job and tail.
    Each of the HORIZON_MINUTES latest forecasts covers the last minute. `exceeded` is the share of
    these forecasts whose tail contained the actual count. The method is adaptive conformal
    inference (Gibbs and Candes 2021). In the long run, each tail gets the probability TAIL for any
    `inner`, unless r reaches its limits.
    """

    inner: Forecaster
    log_stretch: np.ndarray  # r, shape (2, jobs): lower and upper tail
    # Quantiles TAIL and 1 - TAIL of the last forecasts, newest first; NaN = none yet.
    # Shape (forecasts, 2, jobs, minutes).
    tails: np.ndarray

    def start(self, minute_of_day: int = 0) -> "Recalibrated":
        return replace(recalibrated(self.inner.start(minute_of_day)), past=self.past)

    def update(self, counts) -> Self:
        counts = self.checked(counts)
        ahead = np.arange(HORIZON_MINUTES)
        of_last_minute = self.tails[ahead, :, :, ahead]  # (forecasts, 2, jobs)
        low, high = np.moveaxis(of_last_minute, 1, 0)  # each (forecasts, jobs)
        known = ~np.isnan(low) & ~np.isnan(counts)
        beyond = np.stack([(counts < low) & known, (counts > high) & known]).sum(axis=1)
        forecasts = known.sum(axis=0)
        drift = np.where(forecasts > 0, beyond / np.maximum(forecasts, 1) - TAIL, 0.0)
        log_stretch = np.clip(self.log_stretch + RATE * drift, MIN_LOG_STRETCH, MAX_LOG_STRETCH)

        later = replace(
            Forecaster.update(self, counts),
            inner=self.inner.update(counts),
            log_stretch=log_stretch,
        )
        if np.isnan(later.counts).all():  # nothing to forecast from yet
            newest = np.full_like(self.tails[0], np.nan)
        else:
            newest = _tails(later.sample(HORIZON_MINUTES, TRACKED_SAMPLES))
        return replace(later, tails=np.concatenate([newest[None], self.tails[:-1]]))

    def known(self) -> np.ndarray:
        return self.inner.known()

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        samples = self.inner.sample(horizon, n)
        median = np.median(samples, axis=1, keepdims=True)
        off = samples - median
        lower, upper = np.exp(self.log_stretch).astype(samples.dtype)[:, :, None, None]
        return np.maximum(median + off * np.where(off < 0, lower, upper), 0)


def _tails(samples: np.ndarray) -> np.ndarray:
    """Quantiles TAIL and 1 - TAIL (2, jobs, minutes) of samples (jobs, samples, minutes)."""
    # These order statistics have a probability of at most TAIL beyond them. Interpolated quantiles
    # would have more.
    n = samples.shape[1]
    in_tail = int(TAIL * (n + 1))
    ends = (in_tail - 1, n - in_tail)
    return np.partition(samples, ends, axis=1)[:, ends].transpose(1, 0, 2)


def recalibrated(inner: Forecaster) -> Recalibrated:
    """Wrap `inner` in a `Recalibrated` forecaster that corrects nothing yet (`log_stretch` 0)."""
    jobs = len(inner.jobs)
    common = {field.name: getattr(inner, field.name) for field in fields(Forecaster)}
    none_yet = np.full((HORIZON_MINUTES, 2, jobs, HORIZON_MINUTES), np.nan)
    return Recalibrated(**common, inner=inner, log_stretch=np.zeros((2, jobs)), tails=none_yet)
