"""Texts of a run that are no ticks, such as orders: rows of the database `run.db` in its journal.

Several processes write it, each for milliseconds. A text is checked by a checksum over its row.
"""

import os
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from faro_ops.journal.database import connection_to, disk_errors, remove

FILE = "run.db"
TABLE = "CREATE TABLE text (n INTEGER PRIMARY KEY, kind TEXT, body TEXT, checksum INTEGER)"


class Text(NamedTuple):
    """One text; None in `body`: it is damaged."""

    n: int
    body: str | None


class Texts:
    """The texts of one kind in a journal. Without the journal's `run.db`, there are none."""

    def __init__(self, journal: str | Path, kind: str):
        self.path = Path(journal) / FILE
        self.kind = kind

    def read(self) -> list[Text]:
        """The texts, in the order of writing; ValueError if the file is damaged, or OSError."""
        if not self.path.exists():
            return []
        with self._connected() as connection:
            return self._read(connection)

    @contextmanager
    def changing(self) -> Iterator[tuple[list[Text], list[int], list[str]]]:
        """Yield (texts, numbers to remove, new texts); the caller fills the last two.

        They are changed together when the context ends, and nobody else changes any meanwhile.
        Raises ValueError or OSError, and changes nothing then.
        """
        _create(self.path)
        removed: list[int] = []
        added: list[str] = []
        with self._connected() as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield self._read(connection), removed, added
            connection.executemany("DELETE FROM text WHERE n = ?", [(n,) for n in removed])
            (last,) = connection.execute("SELECT coalesce(max(n), 0) FROM text").fetchone()
            rows = [(last + n, self.kind, body) for n, body in enumerate(added, 1)]
            connection.executemany(
                "INSERT INTO text VALUES (?, ?, ?, ?)", [(*row, _checksum(*row)) for row in rows]
            )
            connection.execute("COMMIT")

    def _read(self, connection: sqlite3.Connection) -> list[Text]:
        (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
        found = []
        # A damaged row counts as one of every kind.
        for n, kind, body, checksum in connection.execute("SELECT * FROM text ORDER BY n"):
            if checksum != _checksum(n, kind, body):
                found.append(Text(n, None))
            elif kind == self.kind:
                found.append(Text(n, body))
        return found

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with disk_errors(self.path), closing(connection_to(self.path)) as connection:
                yield connection
        except sqlite3.Error as error:
            problem = " ".join(str(error).split())[:100]
            advice = "remove it to start without orders and without what was learned"
            raise ValueError(f"{self.path}: damaged ({problem}); {advice}") from None


def _checksum(n: object, kind: object, body: object) -> int:
    return zlib.crc32(f"{n} {kind} {body}".encode(errors="replace"))


def _create(file: Path) -> None:
    """Create an empty file, unless it exists. It appears complete, or not at all after a crash."""
    if file.exists():
        return
    file.parent.mkdir(0o700, parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(number)
    partial = Path(name)
    try:
        with disk_errors(file), closing(connection_to(partial)) as connection:
            connection.execute(TABLE)
            connection.execute("PRAGMA journal_mode = WAL")
        with suppress(FileExistsError):  # another writer was faster
            os.link(partial, file)
    finally:
        remove(partial)
