"""The files of a journal: one SQLite database a day, whose rows have their own checksums.

A journal is a folder. `000007-2026-12-02.db` is its seventh file, begun on that day in UTC. The
next file begins with the next day, or after FILE_BYTES. A row is one record of `ticks`, compressed.

SQLite has no checksums of pages, so each row begins with a mark, the columns by which it is found,
and a checksum. A reader compares them all before it uses a file. If anything differs, it looks for
the marks in the bytes of the file instead, and uses every row whose checksum is right. A damaged
byte therefore costs one row, wherever it is, also if SQLite cannot read the file any more. Pages
have 64 KiB, so that a row of 200 jobs lies in one of them.
"""

import errno
import json
import logging
import os
import re
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

LOG = logging.getLogger(__name__)
APPLICATION = 0x4661726F  # "Faro", in the header of a file
MARK = re.compile(b"Faro\x01")  # where a row begins
FRAME = struct.Struct(">5sIIId?I")  # mark, the columns of a row, and the length of its record
CHECKSUM = struct.Struct(">I")  # of all that and of the record; it stands between them
TABLE = (
    "CREATE TABLE record (n INTEGER PRIMARY KEY, part INTEGER NOT NULL, keyframe INTEGER NOT NULL, "
    "now_s REAL NOT NULL, decided INTEGER NOT NULL, body BLOB NOT NULL)"
)
COLUMNS = "n, part, keyframe, now_s, decided, body"
PAGE_BYTES = 1 << 16
FILE_BYTES = 16 << 20  # a longer file is not continued, so that earlier hours can be thinned out
WAIT_S = 10.0  # for a lock of another process, which holds it for milliseconds
NAME = re.compile(r"(\d{6,})-(\d{4}-\d\d-\d\d)\.db")
NO_JOURNAL = "no such file; expected a journal of `faro run`"
# Codes of SQLite for errors of the disk, and not of the file's content.
DISK = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
}


class RecordRow(NamedTuple):
    """A record and the columns by which SQL finds it.

    n : its number in its file: 1, 2, ...
    part : n of the header that it belongs to; of a header, n of its first copy.
    keyframe : n of the tick that has the fields that it lacks; its own n if it lacks none; 0: it is
        a header.
    now_s : time of the tick, in seconds since time 0 of the run.
    decided : whether the plan of the tick decided anything.
    """

    n: int
    part: int
    keyframe: int
    now_s: float
    decided: bool
    record: bytes  # JSON, compressed

    @classmethod
    def of(
        cls,
        record: Mapping[str, Any],
        n: int,
        part: int,
        keyframe: int,
        now_s: float,
        decided: bool,
    ) -> Self:
        text = json.dumps(record, allow_nan=False).encode()
        return cls(n, part, keyframe, now_s, decided, zlib.compress(text))

    @property
    def is_header(self) -> bool:
        return self.keyframe == 0

    @property
    def body(self) -> bytes:
        """The row as its column `body` has it: with its mark, columns and checksum."""
        head = FRAME.pack(b"Faro\x01", *self[:5], len(self.record))
        return head + CHECKSUM.pack(zlib.crc32(head + self.record)) + self.record

    @classmethod
    def in_bytes(cls, content: bytes, start: int = 0) -> Self | None:
        """The row whose mark is at `start`; None if its checksum is wrong."""
        begin = start + FRAME.size + CHECKSUM.size
        head, checksum = content[start : start + FRAME.size], content[begin - CHECKSUM.size : begin]
        if len(checksum) < CHECKSUM.size:
            return None
        _, n, part, keyframe, now_s, decided, length = FRAME.unpack(head)
        record = content[begin : begin + length]
        if zlib.crc32(head + record) != CHECKSUM.unpack(checksum)[0]:
            return None
        return cls(n, part, keyframe, now_s, decided, record)

    def content(self) -> dict[str, Any]:
        return json.loads(zlib.decompress(self.record))


# --- files ----------------------------------------------------------------------------------------


def day_files(path: Path) -> list[Path]:
    """The files of a journal, oldest first."""
    found = [one for one in path.iterdir() if NAME.fullmatch(one.name)] if path.is_dir() else []
    return sorted(found, key=number_of)


def number_of(file: Path) -> int:
    return int(file.name.partition("-")[0])


def day_of(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")


def size_of(file: Path) -> int:
    """Bytes of a file with what SQLite keeps next to it; 0 if it is gone."""
    total = 0
    for one in (file, *beside(file)):
        with suppress(FileNotFoundError):
            total += one.stat().st_size
    return total


def beside(file: Path) -> tuple[Path, Path]:
    """The paths of the write-ahead log of a file, and of its index."""
    return Path(f"{file}-wal"), Path(f"{file}-shm")


def remove(file: Path) -> None:
    for one in (file, *beside(file)):
        one.unlink(missing_ok=True)


def make_room(path: Path) -> bool:
    """Delete a journal's oldest file, because the disk is full; False if it has only one."""
    files = day_files(path)
    if len(files) < 2:
        return False
    remove(files[0])
    return True


@contextmanager
def disk_errors(file: Path) -> Iterator[None]:
    """Raise an error of the disk as OSError; errors of the file's content stay as they are."""
    try:
        yield
    except sqlite3.Error as error:
        code = DISK.get(_code_of(error))
        if code is None:
            raise
        if code == errno.EBUSY:
            problem = f"another process has been writing it for {WAIT_S:g} s; try again"
            raise OSError(f"{file}: {problem}") from None
        raise OSError(code, os.strerror(code), str(file)) from None


def connection_to(file: Path, options: str = "mode=rw") -> sqlite3.Connection:
    return sqlite3.connect(
        f"{file.absolute().as_uri()}?{options}",
        timeout=WAIT_S,
        isolation_level=None,  # transactions begin where the code says so
        check_same_thread=False,
        uri=True,
    )


# --- reading --------------------------------------------------------------------------------------


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection with the sound rows of a file, in the table `record`.

    If anything in the file is damaged, one line says so, and the rows that can be read are in
    memory. A file that was deleted meanwhile, to make room, has no rows. OSError if the disk fails.
    """
    if not file.exists():
        with closing(in_memory(())) as connection:
            yield connection
        return
    with disk_errors(file):
        connection = _read_only(file)
        with closing(connection):
            problem = damage_in(connection)
            if not problem:
                yield connection
                return
    rows = saved_rows(file)
    lost = max((row.n for row in rows), default=0) - len(rows)
    lines = f"{lost} record{'' if lost == 1 else 's'}"
    outcome = f"{lines} cannot be used, all others are" if rows else "nothing is left"
    warn_once(f"{file}: damaged ({problem}); {outcome}")
    with closing(in_memory(rows)) as connection:
        yield connection


def _read_only(file: Path) -> sqlite3.Connection:
    connection = connection_to(file, "mode=ro")
    try:
        connection.execute("BEGIN")  # all that follows sees the same rows
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:  # `damage_in` meets other errors again, and says what is wrong
        if _code_of(error) == sqlite3.SQLITE_CANTOPEN and not beside(file)[0].exists():
            # In a folder that cannot be written, nobody writes the file, so it needs no locks.
            connection.close()
            return connection_to(file, "immutable=1")
    return connection


def _code_of(error: sqlite3.Error) -> int:
    """The primary result code of SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def damage_in(connection: sqlite3.Connection) -> str:
    """What is wrong with an open file, as one line; "" if nothing is.

    Compares every row with its checksum and its columns.
    """
    try:
        (version,) = connection.execute("PRAGMA application_id").fetchone()
        if version != APPLICATION:
            return "its header is wrong"
        (problem,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if problem != "ok":
            return " ".join(str(problem).split())[:100]
        rows = connection.execute(f"SELECT {COLUMNS} FROM record ORDER BY n")
        for number, (*columns, body) in enumerate(rows, 1):
            row = RecordRow.in_bytes(body) if isinstance(body, bytes) else None
            if row is None or list(row[:5]) != columns or row.n != number:
                return f"record {number}: its checksum is wrong"
    except sqlite3.Error as error:
        if _code_of(error) in DISK:
            raise
        return " ".join(str(error).split())[:100]
    except (UnicodeError, OverflowError, TypeError) as error:  # a damaged text or number
        return type(error).__name__
    return ""


def is_sound(file: Path) -> bool:
    """Whether nothing in a file is damaged; it is not changed."""
    with disk_errors(file), closing(_read_only(file)) as connection:
        return not damage_in(connection)


def saved_rows(file: Path) -> list[RecordRow]:
    """The rows of a damaged file that can still be used.

    They are those whose checksums are right, and that have their header and keyframe. They come
    from the bytes of the file and of its write-ahead log. A row that is longer than a page does not
    lie there in one piece; SQL reads it up to the damage, from both sides.
    """
    rows = {row.n: row for one in (file, beside(file)[0]) for row in rows_in(one)}
    for order in ("n", "n DESC"):
        with suppress(sqlite3.Error, UnicodeError), closing(_read_only(file)) as connection:
            for (body,) in connection.execute(f"SELECT body FROM record ORDER BY {order}"):
                row = RecordRow.in_bytes(body) if isinstance(body, bytes) else None
                if row is not None:
                    rows[row.n] = row
    usable = [
        row
        for row in rows.values()
        if row.part in rows or row.part + 1 in rows  # a header is there twice
        if row.keyframe in rows or row.is_header
    ]
    return sorted(usable)


def rows_in(file: Path) -> list[RecordRow]:
    """The rows with right checksums in the bytes of a file, or of a write-ahead log; [] without."""
    with suppress(FileNotFoundError):
        content = file.read_bytes()
        found = (RecordRow.in_bytes(content, mark.start()) for mark in MARK.finditer(content))
        return [row for row in found if row is not None]
    return []


def in_memory(rows: Iterable[RecordRow]) -> sqlite3.Connection:
    """A database in memory with the given rows."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(TABLE)
    insert(connection, rows)
    return connection


def insert(connection: sqlite3.Connection, rows: Iterable[RecordRow]) -> None:
    connection.executemany(
        f"INSERT INTO record ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
        [(*row[:5], row.body) for row in rows],
    )


@lru_cache(maxsize=1000)
def warn_once(line: str) -> None:
    """Log a warning, but not again, although a command may read a file several times."""
    LOG.warning("%s", line)


# --- writing --------------------------------------------------------------------------------------


class DayFile:
    """A file that this process writes, in WAL mode, with every transaction synced to the disk.

    Readers in other processes see complete transactions. `synchronous` is FULL, because with NORMAL
    the loss of power could cost all ticks since the last checkpoint. A checkpoint every minute
    keeps the write-ahead log short: damage in it costs all that follows it there.
    """

    def __init__(self, file: Path):
        """Open a sound file. ValueError if the volume has no locks, OSError if it is read-only."""
        self.path = file
        with disk_errors(file):
            self._connection = connection_to(file)
            try:
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute("PRAGMA wal_autocheckpoint = 0")
                (mode,) = self._connection.execute("PRAGMA journal_mode = WAL").fetchone()
                if mode != "wal":
                    raise ValueError(
                        f"{file.parent}: this volume cannot share memory between processes, as "
                        "SQLite's WAL mode needs; name a journal on a local disk"
                    )
                newest = "SELECT n, part FROM record ORDER BY n DESC LIMIT 1"
                last = self._connection.execute(newest).fetchone()
            except BaseException:
                self._connection.close()
                raise
        numbers: tuple[int, int] = last or (0, 0)
        self.records, self.last_part = numbers

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Begin the next file of a journal. It appears complete, or not at all after a crash."""
        number = max(map(number_of, day_files(folder)), default=0) + 1
        file = folder / f"{number:06d}-{day_of(time.time())}.db"
        write_file(file, ())
        return cls(file)

    def append(self, rows: Iterable[RecordRow]) -> None:
        """Write all rows, or none: OSError if the disk is full, sqlite3.Error if it is damaged."""
        rows = list(rows)
        with disk_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                insert(self._connection, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have done it
                    self._connection.execute("ROLLBACK")
                raise
        self.records += len(rows)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file; what does not fit on the disk stays there."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    @property
    def continues(self) -> bool:
        """Whether the next tick goes into this file, by its day and length."""
        same_day = self.path.stem.partition("-")[2] == day_of(time.time())
        return same_day and size_of(self.path) < FILE_BYTES

    def close(self) -> None:
        self.checkpoint()
        self._connection.close()


def write_file(file: Path, rows: Iterable[RecordRow]) -> None:
    """Write a file with the given rows, which appears complete or not at all; OSError if not."""
    partial = file.with_name(f".{file.name}")
    remove(partial)
    partial.touch(0o600)
    try:
        with disk_errors(file), closing(connection_to(partial)) as connection:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN")
            connection.execute(TABLE)
            insert(connection, rows)
            connection.execute("COMMIT")
        partial.replace(file)
        _sync_folder(file.parent)
    except BaseException:
        remove(partial)
        Path(f"{partial}-journal").unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Have the name of a new file on the disk, too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def settle(file: Path) -> bool:
    """End the WAL mode of a file that nobody writes any more; False if a reader has it open.

    It then lies in one file, which can be replaced. Its modification time stays.
    """
    status = file.stat()
    try:
        with closing(connection_to(file)) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.Error:
        return False
    os.utime(file, (status.st_atime, status.st_mtime))
    return mode == "delete" and not beside(file)[0].exists()
