"""Online recalibration: stretch the tails of the sample paths until they have their nominal coverage."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster

MIN_LOG_STRETCH, MAX_LOG_STRETCH = -1.0, 1.5
TRACKED_SAMPLES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated(Forecaster):
    """Any forecaster, with each tail of each job stretched about the median by adaptive conformal inference.

    x' = median + exp(r) (x - median), with r per job and tail;  r <- r + rate (missed - tail),

    where `missed` is the share of the forecasts of the last minute (one for each horizon) whose tail
    quantile it exceeded (Gibbs and Candes 2021, on the log of the width). Over a long day each tail is
    missed at its nominal rate, whatever the model.
    """

    inner: Forecaster  # the forecaster that is recalibrated
    rate: float = 0.07  # learning rate of the stretch, per minute
    tail: float = 0.1  # probability of each tail whose quantile is tracked
    log_stretch: np.ndarray  # r, shape (2, jobs): lower and upper tail
    # Tail quantiles of the forecasts made i + 1 minutes ago, (HORIZON_MINUTES, 2, jobs, HORIZON_MINUTES); NaN before.
    tails: np.ndarray

    def start(self, minute_of_day: int = 0) -> Self:
        return replace(
            Forecaster.start(self, minute_of_day),
            inner=self.inner.start(minute_of_day),
            log_stretch=np.zeros_like(self.log_stretch),
            tails=np.full_like(self.tails, np.nan),
        )

    def update(self, counts) -> Self:
        counts = self.checked(counts)
        ahead = np.arange(HORIZON_MINUTES)
        low, high = np.moveaxis(self.tails[ahead, :, :, ahead], 1, 0)  # each (horizon, jobs)
        known = ~np.isnan(low) & ~np.isnan(counts)
        beyond = np.stack([(counts < low) & known, (counts > high) & known]).sum(axis=1)
        forecasts = known.sum(axis=0)
        drift = np.where(forecasts > 0, beyond / np.maximum(forecasts, 1) - self.tail, 0.0)
        log_stretch = np.clip(self.log_stretch + self.rate * drift, MIN_LOG_STRETCH, MAX_LOG_STRETCH)

        later = replace(Forecaster.update(self, counts), inner=self.inner.update(counts), log_stretch=log_stretch)
        samples = later.sample(HORIZON_MINUTES, TRACKED_SAMPLES)
        # The order statistics at or beyond the tail probability, so that the tracked quantile is not too narrow.
        in_tail = int(self.tail * (TRACKED_SAMPLES + 1))
        ends = (in_tail - 1, TRACKED_SAMPLES - in_tail)
        tails = np.partition(samples, ends, axis=1)[:, ends].transpose(1, 0, 2)
        return replace(later, tails=np.concatenate([tails[None], self.tails[:-1]]))

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        self.check_horizon(horizon, n)
        samples = self.inner.sample(horizon, n)
        median = np.median(samples, axis=1, keepdims=True)
        off = samples - median
        lower, upper = np.exp(self.log_stretch).astype(samples.dtype)[:, :, None, None]
        return np.maximum(median + off * np.where(off < 0, lower, upper), 0)


def recalibrated(inner: Forecaster, *, rate: float = 0.07, tail: float = 0.1) -> Recalibrated:
    """`inner`, recalibrated from its next update on.

    The rate was tuned on the last two training days of the published traces (0.05 to 0.1 do equally well).
    """
    if not 0 < tail < 0.5:
        raise ValueError(f"tail={tail} must lie strictly between 0 and 0.5")
    if not rate >= 0:
        raise ValueError(f"rate={rate} must be a number >= 0")
    jobs = len(inner.jobs)
    return Recalibrated(
        jobs=inner.jobs,
        seed=inner.seed,
        day_minutes=inner.day_minutes,
        minute_of_day=inner.minute_of_day,
        minutes_seen=inner.minutes_seen,
        counts=inner.counts,
        inner=inner,
        rate=rate,
        tail=tail,
        log_stretch=np.zeros((2, jobs)),
        tails=np.full((HORIZON_MINUTES, 2, jobs, HORIZON_MINUTES), np.nan),
    )
