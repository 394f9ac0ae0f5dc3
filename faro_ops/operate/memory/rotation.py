"""Rotation of a journal: all but its newest records move to a compressed archive next to it.

A journal's generation is the number of its rotations. The header of a rotated journal contains
this number. Rotating a journal of generation n writes archive n and then replaces the journal by
generation n + 1. If a crash prevents the replacement, archive n contains records that are still in
the journal. Readers use only archives with numbers below the journal's generation, and therefore
read no record twice. The next rotation overwrites archive n.
"""

import fcntl
import gzip
import os
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import IO

from faro_lib.files import atomic_write
from faro_ops.operate.memory.records import BEGIN, complete_lines, decoded, encoded

MAX_BYTES = 16 << 20  # a longer journal is rotated
NOT_A_KEYFRAME = b'{"kind": "tick", "of": '


def lock(file: IO, path: str | Path) -> None:
    """Lock a journal until the file is closed; ValueError if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        problem = "another controller writes this journal; stop it, or name another journal"
        raise ValueError(f"{path}: {problem}") from None


def generation_of(path: Path) -> int:
    """How often this journal was rotated.

    Its header says it, and stands twice at the start. If both copies are damaged, the archives
    tell.
    """
    first = []
    if path.exists():
        first = list(islice(complete_lines(path), 2))
    for line in first:
        try:
            record = decoded(line)
            if record["kind"] == BEGIN:
                return int(record.get("generation", 0))
        except (ValueError, TypeError):
            continue
    if not first:  # a new journal; archives of this name belong to a deleted one
        return 0
    return max((_number_of(one) + 1 for one in _all_archives(path)), default=0)


def archives(path: Path) -> list[Path]:
    """Paths of the existing archives of a journal, oldest first."""
    generation = generation_of(path)
    return [one for one in _all_archives(path) if _number_of(one) < generation]


def _all_archives(path: Path) -> list[Path]:
    """All archives of a journal, oldest first, with one of an interrupted rotation."""
    return sorted(path.parent.glob(f"{path.name}.[0-9][0-9][0-9][0-9][0-9][0-9].gz"))


def _number_of(archive: Path) -> int:
    return int(archive.name[-9:-3])


def _archive(path: Path, generation: int) -> Path:
    return path.with_name(f"{path.name}.{generation:06d}.gz")


def rotate(path: Path, keep: int) -> IO | None:
    """Archive all but the newest `keep` lines, or some more, so that a keyframe comes first.

    Returns the new journal, open and locked, or None if nothing is archived. OSError if the disk is
    full.
    """
    lines = path.read_bytes().splitlines(keepends=True)
    first = max(0, len(lines) - keep)
    while first and lines[first].startswith(NOT_A_KEYFRAME):
        first -= 1
    moved, kept = lines[:first], lines[first:]
    headers = [line for line in moved if b'"begin"' in line]
    if not any(b'"tick"' in line for line in moved) or not headers:
        return None  # only the header would be archived
    generation = generation_of(path)
    records = (decoded(line.rstrip(b"\n")) for line in reversed(headers))
    header = next(one for one in records if one["kind"] == BEGIN)
    write_archive(_archive(path, generation), b"".join(moved))
    head = encoded(header | {"generation": generation + 1})
    return replaced(path, b"".join([head, head, *kept]))


def write_archive(archive: Path, content: bytes) -> None:
    """Write a compressed archive and wait until it is on the disk."""
    with atomic_write(archive) as partial:
        partial.touch(0o600)
        partial.write_bytes(gzip.compress(content, compresslevel=6))
        with partial.open("rb") as written:
            os.fsync(written.fileno())


def replaced(path: Path, content: bytes) -> IO:
    """Replace a journal's content; the new file, open and locked."""
    with atomic_write(path) as partial:
        partial.touch(0o600)
        partial.write_bytes(content)
        file = partial.open("ab", buffering=0)
        os.fsync(file.fileno())
        lock(file, path)
    return file


def without_lines(file: IO, path: Path, damaged: Collection[tuple[int, bytes]]) -> tuple[IO, Path]:
    """Move damaged lines, (number, line), of the open journal `file` to a file next to it.

    Returns the journal without them, open and locked, and the path of the other file.
    """
    aside = path.with_name(f"{path.name}.damaged")
    aside.touch(0o600)
    with aside.open("ab") as other:
        other.writelines(line + b"\n" for _, line in damaged)
        os.fsync(other.fileno())
    numbers = {number for number, _ in damaged}
    lines = enumerate(complete_lines(path), 1)
    kept = b"".join(line + b"\n" for number, line in lines if number not in numbers)
    new = replaced(path, kept)
    file.close()
    return new, aside


def make_room(path: Path) -> bool:
    """Delete a journal's oldest archive, because the disk is full; False if it has none."""
    oldest = archives(path)[:1]
    for one in oldest:
        one.unlink(missing_ok=True)
    return bool(oldest)
