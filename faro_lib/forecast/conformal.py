"""Recalibration as the day goes: stretch the sample paths until the tails hold what they promise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.forecast.forecaster import HORIZON_MINUTES, Forecaster, check_horizon

LEAST_LOG_STRETCH, MOST_LOG_STRETCH = -1.0, 1.5
TRACKED_SAMPLES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrated(Forecaster):
    """Any forecaster, with each tail of each job stretched about the median by adaptive conformal inference.

    x' = median + exp(r) (x - median), with r per job and tail;  r <- r + rate (missed - tail),

    where `missed` is the share of the forecasts of the minute that just ended (one for each horizon) whose tail
    quantile it lay beyond (Gibbs and Candes 2021, on the log of the width). Over a long day each tail is missed as
    often as promised, whatever the model believes; whole paths stay whole paths.

    Attributes
    ----------
    inner : the forecaster that is recalibrated.
    rate : how fast the stretch follows, per minute.
    tail : the share of each tail whose quantile is watched.
    log_stretch : r, shape (2, jobs): lower and upper tail.
    promised : the tail quantiles of the last forecasts, shape (HORIZON_MINUTES, 2, jobs, HORIZON_MINUTES): [i] was made
        i + 1 minutes ago; NaN before the first.
    """

    inner: Forecaster
    rate: float = 0.07
    tail: float = 0.1
    log_stretch: np.ndarray
    promised: np.ndarray

    def start(self, minute_of_day: int = 0) -> Self:
        return replace(
            Forecaster.start(self, minute_of_day),
            inner=self.inner.start(minute_of_day),
            log_stretch=np.zeros_like(self.log_stretch),
            promised=np.full_like(self.promised, np.nan),
        )

    def update(self, counts) -> Self:
        counts = self.checked(counts)
        ahead = np.arange(HORIZON_MINUTES)
        low, high = np.moveaxis(self.promised[ahead, :, :, ahead], 1, 0)  # each (horizon, jobs)
        known = ~np.isnan(low) & ~np.isnan(counts)
        beyond = np.stack([(counts < low) & known, (counts > high) & known]).sum(axis=1)
        forecasts = known.sum(axis=0)
        drift = np.where(forecasts > 0, beyond / np.maximum(forecasts, 1) - self.tail, 0.0)
        log_stretch = np.clip(self.log_stretch + self.rate * drift, LEAST_LOG_STRETCH, MOST_LOG_STRETCH)

        later = Forecaster.update(self, counts)
        later = replace(later, inner=self.inner.update(counts), log_stretch=log_stretch)
        samples = later.sample(HORIZON_MINUTES, TRACKED_SAMPLES)
        # The order statistics at or beyond the tail: the promise itself is not optimistic.
        ends = (int(self.tail * (TRACKED_SAMPLES + 1)) - 1, TRACKED_SAMPLES - int(self.tail * (TRACKED_SAMPLES + 1)))
        promise = np.partition(samples, ends, axis=1)[:, ends].transpose(1, 0, 2)
        return replace(later, promised=np.concatenate([promise[None], self.promised[:-1]]))

    def sample(self, horizon: int = HORIZON_MINUTES, n: int = 100) -> np.ndarray:
        check_horizon(horizon, n)
        samples = self.inner.sample(horizon, n)
        middle = np.median(samples, axis=1, keepdims=True)
        off = samples - middle
        lower, upper = np.exp(self.log_stretch).astype(samples.dtype)[:, :, None, None]
        return np.maximum(middle + off * np.where(off < 0, lower, upper), 0)


def recalibrated(inner: Forecaster, *, rate: float = 0.07, tail: float = 0.1) -> Recalibrated:
    """`inner`, recalibrated from its next update on.

    The rate was chosen on the last two training days of the published traces (0.05 to 0.1 do equally well).
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
        seen=inner.seen,
        counts=inner.counts,
        inner=inner,
        rate=rate,
        tail=tail,
        log_stretch=np.zeros((2, jobs)),
        promised=np.full((HORIZON_MINUTES, 2, jobs, HORIZON_MINUTES), np.nan),
    )
