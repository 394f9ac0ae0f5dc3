"""Check, before a long run starts, that its files can be written."""

import errno
import os
import tempfile
from pathlib import Path


def check_writable(path: str | Path) -> None:
    """Raise OSError if writing to the file or folder `path` would fail.

    `path` need not exist. Nothing is changed.
    """
    path = Path(path)
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    try:
        if existing.is_dir():
            tempfile.TemporaryFile(dir=existing).close()
        elif existing == path:
            path.open("ab").close()
        else:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(existing)) from None
