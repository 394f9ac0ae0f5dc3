"""Files that are complete or absent."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield the path to write to; on success it is moved to `path`, on an error it is removed.

    >>> page = Path(tempfile.mkdtemp()) / "page.html"
    >>> with atomic_write(page) as partial:
    ...     written = partial.write_text("all of it")
    >>> page.read_text()
    'all of it'
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}")  # keeps the suffix, which tells writers the format
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_writable(path: str | Path) -> None:
    """Raise the OSError that writing this file, or a file in this folder, would raise; nothing is left behind."""
    path = Path(path)
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    try:
        if existing.is_dir():
            with tempfile.TemporaryFile(dir=existing):
                pass
        elif existing == path:
            with path.open("ab"):
                pass
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(existing)) from None
