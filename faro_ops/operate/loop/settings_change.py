"""Set up changed settings beside the running ones, which stay in use until the new ones are ready.

A set-up may wait for a server that does not answer, or fit a model for minutes. It runs in a thread
of its own, and the control loop asks before every tick whether it is ready. A set-up that fails
changes nothing: the running one stays.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from faro_ops.errors import message_of
from faro_ops.operate.background import in_thread

RETRY_S = 60.0  # seconds until a set-up that met an OSError is tried again
PATIENCE_S = 2.0  # the tick waits so long for a set-up that has just begun; most take less
Settings = TypeVar("Settings")
Ready = TypeVar("Ready")


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why the newest settings are not in use."""

    reason: str  # one line
    since_s: float  # Unix time at which settings were first rejected


class SettingsChange(Generic[Settings, Ready]):
    """The set-up of the settings that are wanted but not in use yet.

    set_up : makes what a pass needs of some settings; called in a thread, and must not change what
        runs.
    discard : releases the result of a set-up that is no longer wanted.
    report : called with the reason when settings are rejected, once per reason.

    rejected : why the newest settings are not in use; None if they are, or are still being set up.
    """

    def __init__(
        self,
        set_up: Callable[[Settings], Ready],
        discard: Callable[[Ready], object],
        report: Callable[[str], object],
    ):
        self._set_up = set_up
        self._discard = discard
        self._report = report
        self._wanted: Settings | None = None
        self._begun: Settings | None = None  # settings that are being set up
        self._future: Future[Ready] | None = None
        self._due_s = -math.inf  # monotonic time of the next attempt
        self.rejected: Rejected | None = None

    def want(self, settings: Settings | None) -> None:
        """Set these settings up; None: those that run are wanted again."""
        self._wanted = settings
        self._due_s = -math.inf
        if settings is None:
            self.rejected = None

    def ready(self) -> Ready | None:
        """The finished set-up of the wanted settings; None if there is none (yet)."""
        if self._future is None and self._wanted is not None and time.monotonic() >= self._due_s:
            self._begun = self._wanted
            self._future = in_thread(partial(self._set_up, self._wanted))
            wait((self._future,), PATIENCE_S)
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        error = future.exception()
        if self._begun is not self._wanted:  # meanwhile, other settings are wanted
            if error is None:
                self._discard(future.result())
            return self.ready()
        if error is not None:
            self.reject(error)
            return None
        self._wanted = self.rejected = None
        return future.result()

    def reject(self, error: BaseException) -> None:
        """Keep what runs. After an OSError, the settings are tried again in RETRY_S."""
        self._due_s = time.monotonic() + RETRY_S if isinstance(error, OSError) else math.inf
        reason = reason_of(error)
        before = self.rejected
        if before is None or before.reason != reason:
            self._report(reason)
        self.rejected = Rejected(reason, before.since_s if before else time.time())


def reason_of(error: BaseException) -> str:
    """The error as one line."""
    return " ".join((message_of(error) or f"{type(error).__name__}: {error}").split())
