"""The log of `faro`: lines on standard error, as text or as JSON."""

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from faro_ops.errors import one_line

MAX_LINE = 2000  # characters of a log line
_log_format: Literal["text", "json"] = "text"


def use_log_format(value: Literal["text", "json"]) -> None:
    """Set the format of the lines that `say` logs in this process."""
    global _log_format
    _log_format = value


def say(line: str, reason: str = "") -> None:
    """Log a line to standard error; a failure has a `reason`, other messages have none.

    Texts from outside cannot add lines or control characters to the log (`errors.one_line`).
    """
    line = one_line(line, MAX_LINE)
    if _log_format == "json":
        fields = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": "error" if reason else "info",
            "reason": reason,
            "message": line,
        }
        line = json.dumps({name: value for name, value in fields.items() if value})
    elif reason:
        line = f"faro: {reason}: {line}"
    with suppress(OSError):  # standard error may be redirected to a full disk
        print(line, file=sys.stderr, flush=True)


class SayHandler(logging.Handler):
    """A logging handler that passes records to `say`."""

    def emit(self, record: logging.LogRecord) -> None:
        source = "journal" if record.name.startswith(f"{__package__}.journal") else "kubernetes"
        say(self.format(record), source if record.levelno >= logging.WARNING else "")
