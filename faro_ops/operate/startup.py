"""Run a check before the control loop starts, either once or repeatedly until it passes."""

import operator
import threading
from collections.abc import Callable

RETRY_S = 2.0
Check = Callable[[], object]
Ensure = Callable[[Check], object]


class ConfigurationError(ValueError):
    """A mistake that time does not correct, such as a missing CRD; --wait does not wait for it."""


once: Ensure = operator.call  # runs a check once; an exception of the check ends the program


def until_passed(
    stop: threading.Event, report: Callable[[str | None], None], retry_s: float = RETRY_S
) -> Ensure:
    """A function that runs a check every `retry_s` seconds until the check raises no error.

    Errors that may pass are a ValueError, except a ConfigurationError, and an OSError, because a
    server may not answer. It calls `report` with each new error message, and with None once the
    check passes. It raises SystemExit if `stop` is set.
    """

    def ensure(check: Check) -> None:
        reason = None
        while not stop.is_set():
            try:
                check()
                report(None)
                return
            except ConfigurationError:
                raise
            except (ValueError, OSError) as error:
                if str(error) != reason:
                    reason = str(error)
                    report(reason)
                stop.wait(retry_s)
        raise SystemExit(0)

    return ensure
