"""Rotation of a journal: all but its newest records move to a compressed archive next to it.

A journal's generation is the number of its rotations. The header of a rotated journal contains
this number. Rotating a journal of generation n writes archive n and then replaces the journal by
generation n + 1. If a crash prevents the replacement, archive n contains records that are still in
the journal. Readers use only archives with numbers below the journal's generation, and therefore
read no record twice. The next rotation overwrites archive n.
"""

import fcntl
import gzip
import json
import os
from pathlib import Path
from typing import IO

from faro_lib.files import atomic_write

MAX_BYTES = 16 << 20  # a longer journal is rotated
MAX_ARCHIVES = 100  # if there are more, the oldest are deleted


def lock(file: IO, path: str | Path) -> None:
    """Lock a journal until the file is closed; ValueError if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        problem = "another controller writes this journal; stop it, or name another journal"
        raise ValueError(f"{path}: {problem}") from None


def generation_of(path: Path) -> int:
    """How often this journal was rotated; 0 if its first line is damaged or missing."""
    try:
        with path.open("rb") as file:
            return int(json.loads(file.readline()).get("generation", 0))
    except (OSError, ValueError, AttributeError, TypeError):
        return 0


def archives(path: Path) -> list[Path]:
    """Paths of the existing archives of a journal, oldest first."""
    possible = [_archive(path, number) for number in range(generation_of(path))]
    return [one for one in possible if one.exists()]


def _archive(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation:06d}.gz")


def rotate(path: Path, keep: int) -> IO | None:
    """Archive all but the newest `keep` lines.

    Returns the new journal, open and locked, or None if nothing is archived.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    moved, kept = lines[:-keep], lines[-keep:]
    if len(moved) < 2:  # only the header would be archived
        return None
    generation = generation_of(path)
    records = (json.loads(line) for line in reversed(moved) if b'"begin"' in line)
    header = next(one for one in records if one["kind"] == "begin") | {"generation": generation + 1}
    with atomic_write(_archive(path, generation)) as partial:
        partial.touch(0o600)
        partial.write_bytes(gzip.compress(b"".join(moved), compresslevel=3))
        with partial.open("rb") as archive:
            os.fsync(archive.fileno())
    with atomic_write(path) as partial:
        partial.touch(0o600)
        partial.write_bytes(json.dumps(header).encode() + b"\n" + b"".join(kept))
        file = partial.open("ab", buffering=0)
        os.fsync(file.fileno())
        lock(file, path)
    for old in archives(path)[:-MAX_ARCHIVES]:
        old.unlink()
    return file
