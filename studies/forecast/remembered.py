"""A forecaster that remembers its forecasts, for many runs on the same requests."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from faro_lib.forecast import Forecaster


class Remembered:
    """Answers as `forecaster` does, and computes each answer once.

    Forecasters are immutable, and a forecast depends only on the counts before it. Runs of
    different policies on the same requests therefore ask the same questions.
    """

    def __init__(self, forecaster: Forecaster):
        self._forecaster = forecaster
        self._answers: dict[tuple, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forecaster, name)

    def start(self, minute_of_day: int = 0) -> Forecaster:
        return self._next(("start", minute_of_day), lambda one: one.start(minute_of_day))

    def skip(self, minutes: int) -> Forecaster:
        return self._next(("skip", minutes), lambda one: one.skip(minutes))

    def update(self, counts: np.ndarray) -> Forecaster:
        key = np.asarray(counts, float).tobytes()
        return self._next(("update", key), lambda one: one.update(counts))

    def sample(self, *arguments: int) -> np.ndarray:
        return self._once(("sample", *arguments), lambda: self._forecaster.sample(*arguments))

    def mean(self, *arguments: int) -> np.ndarray:
        return self._once(("mean", *arguments), lambda: self._forecaster.mean(*arguments))

    def _once(self, key: tuple, answer: Callable[[], Any]) -> Any:
        if key not in self._answers:
            self._answers[key] = answer()
        return self._answers[key]

    def _next(self, key: tuple, change: Callable[[Forecaster], Forecaster]) -> Forecaster:
        return self._once(key, lambda: remembered(change(self._forecaster)))


def remembered(forecaster: Forecaster) -> Forecaster:
    """`forecaster`, with a memory of its answers that all runs share."""
    return cast(Forecaster, Remembered(forecaster))
