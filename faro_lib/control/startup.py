"""Checks before the loop starts: made once, or repeated until they pass."""

from __future__ import annotations

import threading
from collections.abc import Callable

RETRY_S = 2.0
Check = Callable[[], object]
Ensure = Callable[[Check], None]


def once(check: Check) -> None:
    """Make a check; what it raises ends the program."""
    check()


def until_passed(stop: threading.Event, report: Callable[[str | None], None], retry_s: float = RETRY_S) -> Ensure:
    """A function that repeats a check until it raises no ValueError.

    report : receives each new reason to wait, and None once the check has passed.

    Raises SystemExit: `stop` was set first.
    """

    def ensure(check: Check) -> None:
        reason = None
        while not stop.is_set():
            try:
                check()
            except ValueError as error:
                if str(error) != reason:
                    report(reason := str(error))
                stop.wait(retry_s)
            else:
                report(None)
                return
        raise SystemExit(0)

    return ensure
