"""One-line messages for errors that users can fix, such as a full disk or a missing package."""

import errno
import re
from importlib.metadata import PackageNotFoundError, requires

OUT_OF_MEMORY_ADVICE = (
    "take fewer jobs, minutes or trials, stop other programs, or use a machine with more memory"
)
FOLDER_NEEDED = "is a file, and a folder is needed; move it, or name another place"
MORE_SPACE = "free some space or name a place on another disk, and start again"
ADVICE = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "permission denied; change its permissions, or name another place",
    errno.EPERM: "not permitted; change its permissions, or name another place",
    errno.EROFS: "the file system is read-only; name another place",
    errno.ENOSPC: f"the disk is full; {MORE_SPACE}",
    errno.EDQUOT: f"your disk quota is used up; {MORE_SPACE}",
    errno.EFBIG: (
        "the file would exceed the size limit; raise the limit (ulimit -f), and start again"
    ),
    errno.EISDIR: "is a folder, and a file is needed",
    errno.ENOTDIR: FOLDER_NEEDED,
    errno.EEXIST: FOLDER_NEEDED,
    errno.EADDRINUSE: "the port is in use; choose another, or stop the program that uses it",
}
PASSWORD = re.compile(r"://[^/@\s]+@")  # matches the user and the password in a URL


def message_of(error: BaseException) -> str | None:
    """The message of an error that the user can fix; None for a bug, which should show a traceback.

    >>> message_of(OSError(13, "Permission denied", "results/table.csv"))
    'results/table.csv: permission denied; change its permissions, or name another place'
    >>> message_of(ValueError("trials=0 must be at least 1"))
    'trials=0 must be at least 1'
    >>> message_of(KeyError("a bug"))
    """
    if isinstance(error, ModuleNotFoundError):
        return how_to_install(error.name or "")
    if isinstance(error, MemoryError):
        details = f" ({error})" if str(error) else ""
        return f"too little memory{details}: {OUT_OF_MEMORY_ADVICE}"
    if isinstance(error, OSError):
        advice = ADVICE.get(error.errno or 0)
        if advice is None:
            return str(error)
        return advice if error.filename is None else f"{error.filename}: {advice}"
    return str(error) if isinstance(error, ValueError) else None


def one_line(text: str, limit: int = 300) -> str:
    """The text as one line of about `limit` characters; the middle of a longer text is left out.

    Control characters are escaped, and passwords in URLs are hidden.

    >>> one_line("first line\\n\\x1b[31msecond line")
    'first line \\\\x1b[31msecond line'
    """
    text = PASSWORD.sub("://***@", text)
    words = " ".join(text.split())
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in words)
    if len(line) <= limit:
        return line
    return f"{line[: limit - 105]} ... {line[-100:]}"


def how_to_install(module: str) -> str | None:
    """How to install a missing module; None if no optional extra of faro_lib depends on it."""
    package = module.split(".")[0]
    try:
        lines = requires("faro_lib") or []
    except PackageNotFoundError:  # faro_lib runs from a checkout and is not installed
        return None
    wanted = package.replace("_", "-").lower()
    extras = []
    for line in lines:
        match = re.match(r"([\w.-]+).*extra == ['\"](\w+)['\"]", line)
        if match and re.sub(r"[-_.]+", "-", match[1]).lower() == wanted:
            extras.append(match[2])
    if not extras:
        return None
    command = f"pip install 'faro_lib[{min(extras)}]'"
    return f"{package} is not installed: {command} (in a checkout: `make .venv/.ready`)"
