"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Where to write what shall appear at `path` once it is complete; of what fails half way nothing is left.

    >>> import tempfile
    >>> page = Path(tempfile.mkdtemp()) / "page.html"
    >>> with whole(page) as partial:
    ...     written = partial.write_text("all of it")
    >>> page.read_text()
    'all of it'
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}")  # the suffix stays: it says what kind of file it is
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def writable(path: str | Path) -> None:
    """Raise now the OSError that writing this file, or a file in this folder, would raise later; nothing is left behind."""
    path = Path(path)
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    try:
        if there.is_dir():
            with tempfile.TemporaryFile(dir=there):
                pass
        elif there == path:
            with path.open("ab"):
                pass
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(there)) from None
