"""What `auto` forecasts for generated services that launch, stop, double, spike and pause."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from faro_lib.forecast import fit
from faro_lib.workload import Job, Traces

pytestmark = pytest.mark.slow

DAY = 240  # minutes
CHANGES = {"doubling": 2.0, "tenfold": 10.0, "halving": 0.5, "stop": 0.0}
KINDS = ["constant", "launch", "launched yesterday", "spike", "outage", "gap", "sparse", *CHANGES]
LEVELS = [3, 40, 600, 9000, 1_000_000]
MINUTES = [30, 110, 190]  # of the day at which something happens
DAYS = [0, 1, 2, 3, 10]


@dataclass(frozen=True)
class World:
    kind: str
    level: float  # requests per minute
    at: int  # minute of the day of the change
    days: int  # training days
    shaped: bool  # whether the load follows a sine over the day

    def rates(self) -> np.ndarray:
        """Expected requests per minute, shape (days + 1, DAY)."""
        minute = np.arange(DAY)
        usual = self.level * (1 + 0.5 * self.shaped * np.sin(2 * np.pi * minute / DAY))
        rates = np.tile(usual, (self.days + 1, 1))
        today, after = rates[-1], minute >= self.at
        if self.kind == "launch":
            rates[:-1], today[~after] = 0, 0
        elif self.kind == "launched yesterday" and self.days:
            rates[:-2], rates[-2, : DAY // 2] = 0, 0
        elif self.kind == "sparse":
            rates /= 20 * self.level
        elif self.kind in CHANGES:
            today[after] *= CHANGES[self.kind]
        return rates


def worlds(days: int) -> list[World]:
    cases = itertools.product(KINDS, LEVELS, [False, True])
    return [
        World(kind, level, MINUTES[n % 3], days, shaped)
        for n, (kind, level, shaped) in enumerate(cases)
    ]


@dataclass(frozen=True)
class Observed:
    """A day of all worlds with the same number of training days; row = world, column = minute."""

    worlds: list[World]
    rates: np.ndarray  # the truth
    # Mean requests per minute over the next 7 minutes, NaN where none is made.
    forecasts: np.ndarray

    def rows(self, kind):
        return np.flatnonzero([world.kind == kind for world in self.worlds])

    def at(self, row):
        return self.worlds[row].at


@pytest.fixture(
    scope="module",
    params=[
        0,
        3,
        *(pytest.param(days, marks=pytest.mark.slow) for days in DAYS if days not in (0, 3)),
    ],
    ids="{} training days".format,
)
def observed(request):
    cases = worlds(request.param)
    rng = np.random.default_rng(request.param)
    rates = np.stack([world.rates() for world in cases], axis=1)  # (days + 1, worlds, DAY)
    counts = rng.poisson(rates).astype(float)
    at = np.array([world.at for world in cases])
    traces = Traces(
        tuple(Job(f"job{n}") for n in range(len(cases))), counts[:-1, None], counts[-1:]
    )
    today = counts[-1].copy()
    for row, world in enumerate(cases):
        if world.kind in ("spike", "outage"):
            today[row, world.at] *= 20 if world.kind == "spike" else 0
        elif world.kind == "gap":
            today[row, world.at : world.at + 5] = np.nan
    forecaster, forecasts = fit("auto", traces).start(), np.full((len(cases), DAY), np.nan)
    for minute in range(DAY - 7):
        if minute >= 15 and (minute % 15 == 0 or np.isin(minute - at, [1, 15]).any()):
            forecasts[:, minute] = forecaster.sample(7, 100).mean(axis=(1, 2))
        forecaster = forecaster.update(today[:, minute])
    return Observed(cases, rates[-1], forecasts)


def misses(observed, rows, minute, factor):
    """Worlds and forecasts at `minute` off by more than `factor` and three Poisson deviations."""
    truth = np.stack([observed.rates[row, minute : minute + 7].mean() for row in rows])
    forecast = observed.forecasts[rows, minute]
    off = np.maximum(forecast, truth) > factor * np.minimum(forecast, truth)
    off &= np.abs(forecast - truth) > 3 * np.sqrt(np.maximum(truth, 1))
    return [
        (observed.worlds[row], minute, forecast[n], truth[n])
        for n, row in enumerate(rows)
        if off[n]
    ]


def test_a_level_that_has_been_the_same_for_15_minutes_is_forecast_within_a_factor_of_1_5(observed):
    wrong = []
    for minute in range(15, DAY - 7, 15):
        around = observed.rates[:, minute - 15 : minute + 7]
        steady = around.max(axis=1) <= 1.25 * around.min(axis=1)
        wrong += misses(observed, np.flatnonzero(steady), minute, 1.5)
    assert wrong == []


@pytest.mark.parametrize("kind", ["launch", *CHANGES])
def test_a_change_is_forecast_within_a_factor_of_1_3_after_15_minutes(observed, kind):
    assert [
        miss
        for row in observed.rows(kind)
        for miss in misses(observed, [row], observed.at(row) + 15, 1.3)
    ] == []


@pytest.mark.parametrize("kind", ["spike", "outage", "gap"])
def test_one_odd_minute_does_not_change_the_next_forecast_by_a_factor_of_1_5(observed, kind):
    assert [
        miss
        for row in observed.rows(kind)
        for miss in misses(observed, [row], observed.at(row) + 1, 1.5)
    ] == []
