"""One line for an error that the user can fix: a full disk, a missing package, a port in use, a misspelt name."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires

OUT_OF_MEMORY_ADVICE = "take fewer jobs, minutes or trials, end what else is running, or use a machine with more"
ADVICE = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "permission denied; change its permissions, or name a place that is yours",
    errno.EPERM: "not permitted; change its permissions, or name a place that is yours",
    errno.EROFS: "the file system is read-only; name a place that can be written",
    errno.ENOSPC: "the disk is full; free some space or name a place on another disk, and start again",
    errno.EDQUOT: "your disk quota is used up; free some space or name a place on another disk, and start again",
    errno.EFBIG: "the file would be larger than is allowed here; raise the limit (ulimit -f), and start again",
    errno.EISDIR: "is a folder, and a file is needed",
    errno.ENOTDIR: "is a file, and a folder is needed; move it, or name another place",
    errno.EEXIST: "is a file, and a folder is needed; move it, or name another place",
    errno.EADDRINUSE: "the port is in use; choose another, or end what listens there",
}
# The text of an error of another process: `[Errno 28] No space left on device: 'results/table.csv'`.
SYSTEM = re.compile(r"\[Errno (\d+)\] ([^\[\]']*?)(?:: '(.*)')?$")
MODULE = re.compile(r"No module named '([\w.]+)'")
# Old names of settings, options, columns and flags -> new names.
RENAMED = {
    "percentile": "quantile",
    "start_s": "cold_start_s",
    "places": "max_ongoing_requests",
    "most_rps": "max_rps",
    "thin": "data_stride",
    "sizes": "capacities",
    "replicas": "capacity",
    "cold_start_min": "cold_start_minutes",
    "change_penalty": "switching_cost",
    "redress": "deficit_weighting",
    "performance": "latency_model",
    "queue": "ongoing",
    "model": "import_path",
    "options": "args",
    "--replicas": "--capacity",
    "--violations": "--max-violation-rate",
    "--max-moves": "--max-scaling-actions",
    "--dry": "--dry-run",
}


def message_of(error: BaseException) -> str | None:
    """One line for an error that the user can fix; None for a bug, whose traceback is wanted.

    >>> message_of(OSError(28, "No space left on device", "results/table.csv"))
    'results/table.csv: the disk is full; free some space or name a place on another disk, and start again'
    >>> message_of(ValueError("trials=0 must be at least 1"))
    'trials=0 must be at least 1'
    >>> message_of(KeyError("a bug"))
    """
    if isinstance(error, ModuleNotFoundError):
        return how_to_install(error.name or "")
    if isinstance(error, MemoryError):
        return f"too little memory{f' ({error})' if str(error) else ''}: {OUT_OF_MEMORY_ADVICE}"
    if isinstance(error, OSError):
        advice = ADVICE.get(error.errno or 0)
        return f"{error.filename}: {advice}" if advice and error.filename is not None else advice or str(error)
    return str(error) if isinstance(error, ValueError) else None


def message_of_kernel_error(name: str, text: str) -> str:
    """The one-line message of an error that another process raised, from its name and text.

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


def how_to_install(module: str) -> str | None:
    """The command that installs a missing module; None if it is in no extra of this library."""
    package = module.split(".")[0]
    extra = _extras().get(package.replace("_", "-").lower())
    if extra is None:
        return None
    return f"{package} is not installed: pip install 'faro_lib[{extra}]', or let `make .venv/.ready` set up everything"


def _extras() -> dict[str, str]:
    """Package -> the extra of this library that installs it, the first in the alphabet if there are several."""
    try:
        lines = requires("faro_lib") or []
    except PackageNotFoundError:  # a checkout that is not installed
        return {}
    matches = filter(None, (re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line) for line in lines))
    pairs = sorted((match[2], re.sub(r"[-_.]+", "-", match[1]).lower()) for match in matches)
    return {package: extra for extra, package in reversed(pairs)}


def nearest(word: str, accepted: Iterable[str]) -> str:
    """The hint at the end of an error: the new name of a renamed word, the nearest accepted word, or all of them.

    >>> nearest("trails", ["trials", "sizes"])
    "did you mean 'trials'?"
    >>> nearest("x", ["trials", "sizes"])
    'accepted: trials, sizes'
    >>> nearest("thin", ["draws", "data_stride"])
    "it is now called 'data_stride'"
    """
    accepted = list(accepted)
    if RENAMED.get(word) in accepted:
        return f"it is now called {RENAMED[word]!r}"
    lower = {name.lower(): name for name in accepted}
    close = difflib.get_close_matches(str(word).lower(), lower, 1)
    return f"did you mean {lower[close[0]]!r}?" if close else f"accepted: {', '.join(accepted)}"
