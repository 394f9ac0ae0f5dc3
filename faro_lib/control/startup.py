"""Checks before the loop starts, which run once or are repeated until they pass."""

import operator
import threading
from collections.abc import Callable

RETRY_S = 2.0
Check = Callable[[], object]
Ensure = Callable[[Check], object]

once: Ensure = operator.call  # runs a check once; an exception of the check ends the program


def until_passed(stop: threading.Event, report: Callable[[str | None], None], retry_s: float = RETRY_S) -> Ensure:
    """A function that repeats a check every `retry_s` seconds while it raises ValueError; SystemExit once `stop` is set.

    `report` is called with each new reason to wait, and with None when the check has passed.
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
