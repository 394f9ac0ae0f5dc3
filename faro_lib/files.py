"""Atomic writes, and a check that a path can be written."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` on success and is removed on an error."""
    path = Path(path)
    partial = path.with_name(f".{path.name}")  # with the same suffix, from which writers infer the format
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_writable(path: str | Path) -> None:
    """Raise OSError if this file, or a file in this folder, cannot be written. Changes nothing."""
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
