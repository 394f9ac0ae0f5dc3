"""Checks before the loop starts: made once, or repeated until they pass."""

import operator
import threading
from collections.abc import Callable

RETRY_S = 2.0
Check = Callable[[], object]
Ensure = Callable[[Check], object]


once: Ensure = operator.call  # what the check raises ends the program


def until_passed(stop: threading.Event, report: Callable[[str | None], None], retry_s: float = RETRY_S) -> Ensure:
    """A function that repeats a check until it raises no ValueError; it raises SystemExit if `stop` is set first.

    `report` receives each new reason to wait, and None once the check has passed.
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
