"""Waits that do not depend on the speed of the machine: for a condition, or in virtual time."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from unittest import mock

# Of what comes true within seconds. Only a test that fails waits so long.
PATIENCE_S = 120.0
Result = TypeVar("Result")


def until(
    holds: Callable[[], Result],
    within_s: float = PATIENCE_S,
    what: str | Callable[[], str] = "it",
    passing: tuple[type[Exception], ...] = (),
) -> Result:
    """The first true answer of `holds`.

    what : what is waited for, or a function that is asked for it when the time is over.
    passing : exceptions that count as an answer that is not true.
    """
    last: object = None
    end_s = time.monotonic() + within_s
    while True:
        try:
            if last := holds():
                return last
        except passing as error:
            last = error
        if time.monotonic() > end_s:
            break
        time.sleep(0.02)
    what = what() if callable(what) else what
    raise AssertionError(f"{what} did not come true within {within_s:g} s; last seen: {last!r}")


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock advances only when every task waits, and then at once."""

    def __init__(self) -> None:
        super().__init__(_Jumping(self))
        self.now_s = 0.0

    def time(self) -> float:
        return self.now_s


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: _VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout is not None:
            self._loop.now_s += max(0.0, timeout)
        return ready


def in_virtual_time(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that sleeps in virtual time; `time.perf_counter` shows it, too.

    The coroutine must wait neither for a thread nor for a network.
    """
    with (
        asyncio.Runner(loop_factory=_VirtualLoop) as runner,
        mock.patch("time.perf_counter", runner.get_loop().time),
    ):
        return runner.run(coroutine)
