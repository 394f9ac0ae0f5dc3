"""The one-line message for an exception in a notebook's kernel."""

import re

from faro_ops.errors import how_to_install, message_of

# Matches the text of an OSError, with or without a path, such as
# `[Errno 28] No space left on device: 'results/table.csv'`.
SYSTEM = re.compile(r"\[Errno (\d+)\] ([^\[\]']*?)(?:: '(.*)')?$")
MODULE = re.compile(r"No module named '([\w.]+)'")


def message_of_kernel_error(name: str, text: str) -> str:
    """The one-line message for an exception with this class name and text in a notebook's kernel.

    >>> message_of_kernel_error("OSError", "[Errno 28] No space left on device")
    'the disk is full; free some space or name a place on another disk, and start again'
    >>> message_of_kernel_error("KeyError", "'a bug'")
    "KeyError: 'a bug'"
    """
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    message: str | None = None
    if module := MODULE.search(line):
        message = how_to_install(module[1])
    elif name.endswith("MemoryError"):
        message = message_of(MemoryError(line))
    elif system := SYSTEM.search(line):
        message = message_of(OSError(int(system[1]), system[2], system[3]))
    return message or f"{name}: {line}"
