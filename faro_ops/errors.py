"""One-line messages for errors that users can fix, such as a full disk or a missing package."""

import errno
import re
from importlib.metadata import PackageNotFoundError, requires

OUT_OF_MEMORY_ADVICE = (
    "take fewer jobs, minutes or trials, stop other programs, or use a machine with more memory"
)
FOLDER_NEEDED = "is a file, and a folder is needed; move it, or name another place"
ADVICE = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "permission denied; change its permissions, or name another place",
    errno.EPERM: "not permitted; change its permissions, or name another place",
    errno.EROFS: "the file system is read-only; name another place",
    errno.ENOSPC: "the disk is full; free some space or name a place on another disk, and start again",
    errno.EDQUOT: "your disk quota is used up; free some space or name a place on another disk, and start again",
    errno.EFBIG: "the file would exceed the size limit; raise the limit (ulimit -f), and start again",
    errno.EISDIR: "is a folder, and a file is needed",
    errno.ENOTDIR: FOLDER_NEEDED,
    errno.EEXIST: FOLDER_NEEDED,
    errno.EADDRINUSE: "the port is in use; choose another, or stop the program that uses it",
}
PASSWORD = re.compile(r"://[^/@\s]+@")  # matches the user and the password in a URL


def message_of(error: BaseException) -> str | None:
    """The message of an error that the user can fix; None for a bug, which should show a traceback.

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
        return (
            f"{error.filename}: {advice}"
            if advice and error.filename is not None
            else advice or str(error)
        )
    return str(error) if isinstance(error, ValueError) else None


def one_line(text: str, limit: int = 300) -> str:
    """The text as one line, with control characters escaped, passwords in URLs hidden and the middle of a long text cut.

    >>> one_line("first line\\n\\x1b[31msecond line")
    'first line \\\\x1b[31msecond line'
    """
    text = PASSWORD.sub("://***@", text)
    line = "".join(
        char if char.isprintable() else repr(char)[1:-1] for char in " ".join(text.split())
    )
    return line if len(line) <= limit else f"{line[: limit - 105]} ... {line[-100:]}"


def how_to_install(module: str) -> str | None:
    """A message that says how to install a missing module; None if no optional extra of faro_lib depends on it."""
    package = module.split(".")[0]
    try:
        lines = requires("faro_lib") or []
    except PackageNotFoundError:  # faro_lib runs from a checkout and is not installed
        return None
    matches = filter(
        None, (re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line) for line in lines)
    )
    wanted = package.replace("_", "-").lower()
    extras = sorted(
        match[2] for match in matches if re.sub(r"[-_.]+", "-", match[1]).lower() == wanted
    )
    if not extras:
        return None
    return f"{package} is not installed: pip install 'faro_lib[{extras[0]}]' (in a checkout: `make .venv/.ready`)"
