"""Run a check before the control loop starts, either once or repeatedly until it passes."""

import operator
import threading
from collections.abc import Callable

RETRY_S = 2.0
Check = Callable[[], object]
Ensure = Callable[[Check], object]

once: Ensure = operator.call  # runs a check once; an exception of the check ends the program


def until_passed(
    stop: threading.Event, report: Callable[[str | None], None], retry_s: float = RETRY_S
) -> Ensure:
    """A function that runs a check every `retry_s` seconds until the check raises no ValueError.

    It calls `report` with each new error message, and with None once the check passes. It raises
    SystemExit if `stop` is set.
    """

    def ensure(check: Check) -> None:
        reason = None
        while not stop.is_set():
            try:
                check()
                report(None)
                return
            except ValueError as error:
                if str(error) != reason:
                    reason = str(error)
                    report(reason)
                stop.wait(retry_s)
        raise SystemExit(0)

    return ensure
