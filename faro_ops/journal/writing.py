"""Write the journal of a run: every tick is on the disk before the next one begins."""

from __future__ import annotations

import errno
import fcntl
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

from faro_lib.control.tick import Step
from faro_ops.journal import documents, pruning
from faro_ops.journal.database import (
    LOG,
    DayFile,
    RecordRow,
    beside,
    day_files,
    is_sound,
    make_room,
    rows_in,
)
from faro_ops.journal.reading import NothingLeft, newest
from faro_ops.journal.ticks import Header, Tick, Trouble, decided, needs_keyframe, tick_record

LOCK = "lock"  # name of the file that the writer locks
# Replayed when a run resumes: 33 min of 10 s ticks, which cover the 15 min that forecasts use.
REPLAYED_TICKS = 200
END_S = 10.0  # how long the end of a run waits for the thinning of earlier days


class Journal:
    """A journal, which is a folder, that only this controller writes.

    A run resumes from the last part that has ticks. `header` is the header of this part, and
    `ticks` are its newest ticks, at most REPLAYED_TICKS. In a new journal, `header` is None and
    `ticks` is empty.
    """

    def __init__(self, path: str | Path):
        """Open or create a journal.

        If something in it is damaged, one line says so, and the damaged file stays as it is: the
        run goes on in a new one. ValueError if another controller writes the journal, if the path
        is not that of a journal, or if its volume has no locks.
        """
        self.path = Path(path)
        self.header: Header | None = None
        self.ticks: list[Tick] = []
        # `begin` sets (header, ticks, replayed ticks of a run that resumes). The next write has
        # them, and sets None.
        self._begun: tuple[Header, list[Tick], int | None] | None = None
        self._day: DayFile | None = None
        self._part = 0  # the number of its header in the file; 0: the file has no header of it yet
        self._key: tuple[int, Step] | None = None  # the last keyframe: its number, and the tick
        self._thinning: threading.Thread | None = None
        _make_folder(self.path)
        self._lock = _locked(self.path)
        try:
            if day_files(self.path):
                self._read()
        except BaseException:
            self._lock.close()
            raise

    def _read(self) -> None:
        """Read the newest ticks, and open the newest file if it is not damaged."""
        try:
            self.header, ticks = newest(self.path, REPLAYED_TICKS)
            self.ticks = ticks[-REPLAYED_TICKS:]
        except NothingLeft as error:
            LOG.warning("%s; a new part begins", error)
        file = day_files(self.path)[-1]
        in_log = rows_in(beside(file)[0])
        if not is_sound(file):
            return
        self._day = DayFile(file)
        self._part = self._day.last_part
        lost = len({row.n for row in in_log if row.n > self._day.records})
        if lost:
            problem = "its write-ahead log ends in an incomplete write, or is damaged"
            LOG.warning("%s: %s; records lost: %d", file, problem, lost)

    def begin(self, header: Header, replayed_ticks: int | None = None) -> None:
        """Begin a part with `header` at the next tick.

        The last part continues instead if `replayed_ticks` is not None.
        """
        self._key = None
        if replayed_ticks is None or self.header is None:
            self._part = 0
            self._begun = header, [], None
        else:
            self._begun = self.header, self.ticks, replayed_ticks
        if not day_files(self.path):  # write now, because `faro set` reads the jobs' names
            with suppress(OSError):  # the first tick tries again
                self._write(None)

    def tick(
        self,
        step: Step,
        error: str | None,
        failed: tuple[int, ...] | None = None,
        troubled: Mapping[str, Trouble] | None = None,
    ) -> None:
        """Append one tick.

        If the disk is full, the oldest file makes room. If that does not suffice, nothing is
        written, and OSError is raised.

        failed : numbers of the jobs whose targets were not applied.
        troubled : of each job that is not fine, by name.
        """
        replayed_ticks = self._begun[2] if self._begun else None
        one = Tick(step, error, replayed_ticks, failed, None, troubled or {})
        try:
            self._write(one)
        except OSError as problem:
            if problem.errno != errno.ENOSPC or not make_room(self.path):
                raise
            self._write(one)
        self.ticks = [*self.ticks[1 - REPLAYED_TICKS :], one]

    def _write(self, one: Tick | None) -> None:
        """Append a tick, with its header if the file does not have it yet; None: only the header.

        A file that turns out to be damaged is left as it is, and the next one is begun.
        """
        try:
            self._append(one)
        except sqlite3.Error as error:
            damaged = self._day.path if self._day else self.path
            LOG.warning("%s: damaged (%s); the run goes on in a new file", damaged, error)
            self._leave()
            try:
                self._append(one)
            except sqlite3.Error as again:
                raise OSError(errno.EIO, str(again), str(self.path)) from None

    def _append(self, one: Tick | None) -> None:
        header, ticks, _ = self._begun or (self.header, self.ticks, None)
        assert header is not None
        if self._day is None or not self._day.continues:
            self._leave()
            self._day = DayFile.create(self.path)
            self._tidy()
        day, part, key = self._day, self._part, self._key
        number = day.records + 1
        rows: list[RecordRow] = []
        if not part:
            continues = self._begun is None or self._begun[2] is not None
            part, key = number, None
            rows += pruning.header_rows(header, number, continues)
            number += 2
        if one is not None:
            if needs_keyframe(one.step, key and key[1]):
                # The write-ahead log has at most the ticks of one minute.
                day.checkpoint()
                pruning.delete_oldest(self.path)
                key = number, one.step
            assert key is not None
            record = tick_record(one, None if key[0] == number else key[1])
            now_s = one.step.observation.now_s
            rows.append(RecordRow.of(record, number, part, key[0], now_s, decided(one.step.plan)))
        day.append(rows)
        self.header, self.ticks, self._part, self._key = header, ticks, part, key
        self._begun = None

    def _leave(self) -> None:
        """Close the file that is written; the part goes on in the next one."""
        if self._day:
            self._day.close()
        self._day, self._part, self._key = None, 0, None

    def _tidy(self) -> None:
        """Begin to thin out the files of earlier days in a thread."""
        if self._thinning is None or not self._thinning.is_alive():
            tidy = partial(pruning.thin_out, self.path, time.time())
            self._thinning = threading.Thread(target=tidy, daemon=True)
            self._thinning.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thinning:
            self._thinning.join(END_S)
        self._leave()
        if not day_files(self.path):  # no run has begun
            (self.path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # it has something else, such as orders
                self.path.rmdir()
        self._lock.close()


def _make_folder(path: Path) -> None:
    """Make the folder of a journal; ValueError if the path has something else."""
    known = day_files(path) or any((path / name).exists() for name in (LOCK, documents.FILE))
    empty = path.is_dir() and not any(path.iterdir())
    if path.exists() and not (known or empty):
        raise ValueError(f"{path}: not a journal of `faro run`, which is a folder; name another")
    path.mkdir(0o700, parents=True, exist_ok=True)


def _locked(path: Path) -> IO:
    """The open lock file of a journal; ValueError if another process has locked it."""
    file = (path / LOCK).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        problem = "another controller writes this journal; stop it, or name another journal"
    except OSError as error:
        problem = f"this volume has no file locks ({error.strerror}); name one on a local disk"
    else:
        return file
    file.close()
    raise ValueError(f"{path}: {problem}")
