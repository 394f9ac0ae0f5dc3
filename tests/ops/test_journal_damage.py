"""Damage, full disks, kills at any byte and volumes without locks cost a journal what they must."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from checkouts import ROOT
from journal_things import fill_disk, header_of, steps

from faro_ops.cli import main
from faro_ops.journal import database, writing
from faro_ops.journal.database import DayFile, beside, day_files, make_room, warn_once
from faro_ops.journal.reading import parts, read, recorded
from faro_ops.journal.writing import Journal

JOBS = 5
MINUTES = 10
TICKS = 6 * MINUTES
# The pages of a file are large, so that a record lies in one page. A file of ten minutes has few.
PLACES = 150


def write(path, minutes=MINUTES):
    """The times of the ticks in a new journal, by their minute."""
    times_s = {}
    with Journal(path) as journal:
        journal.begin(header_of(JOBS))
        for step in steps(JOBS, minutes):
            journal.tick(step, None)
            now_s = step.observation.now_s
            times_s.setdefault(now_s // 60, []).append(now_s)
    return times_s


def times_s(path):
    return [tick.step.observation.now_s for _, tick in recorded(path)]


@pytest.fixture(autouse=True)
def every_warning():
    warn_once.cache_clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "j"
    write(path)
    return path


@pytest.fixture
def path(tmp_path, whole):
    """A copy of a journal of ten minutes."""
    return shutil.copytree(whole, tmp_path / "j")


def damage(file, place):
    """Change one byte of a file."""
    with file.open("r+b") as content:
        content.seek(place)
        (byte,) = content.read(1)
        content.seek(place)
        content.write(bytes([byte ^ 0x55]))


def lost_minutes(path, before):
    """The minutes of which a tick is lost."""
    left = set(times_s(path))
    assert left <= {now_s for minute in before.values() for now_s in minute}
    return [minute for minute, of_minute in before.items() if not set(of_minute) <= left]


def by_minute(path):
    found = {}
    for now_s in times_s(path):
        found.setdefault(now_s // 60, []).append(now_s)
    return found


# --- a damaged byte -------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["the first kilobyte", "the whole file"])
def test_a_damaged_byte_costs_at_most_the_ticks_of_one_minute_wherever_it_is(tmp_path, whole, of):
    """Also in the header of the file, and where SQLite then reads nothing any more."""
    (file,) = day_files(whole)
    before = by_minute(whole)
    size = file.stat().st_size
    last = 1024 if of == "the first kilobyte" else size
    content = file.read_bytes()
    copy = tmp_path / "j" / file.name
    copy.parent.mkdir()
    for place in range(0, last, max(1, last // PLACES)):
        copy.write_bytes(content)
        damage(copy, place)
        assert len(lost_minutes(copy.parent, before)) <= 1, place


def test_damage_is_named_in_one_line_and_all_other_ticks_are_used(path, caplog, capsys):
    (file,) = day_files(path)
    content = file.read_bytes()
    damage(file, content.rindex(b"Faro\x01") + 60)
    assert main(["explain", str(path)]) == 0
    assert "Faro-Sum at " in capsys.readouterr().out
    (message,) = caplog.messages
    assert message.startswith(f"{file}: damaged (record ")
    assert message.endswith("its checksum is wrong); 1 record cannot be used, all others are")


def test_a_damaged_first_tick_of_a_minute_costs_its_minute_and_a_later_one_only_itself(path):
    (file,) = day_files(path)
    before = len(times_s(path))
    with closing(sqlite3.connect(file)) as day:
        (keyframe,) = day.execute("SELECT body FROM record WHERE keyframe = n LIMIT 1").fetchone()
        (later,) = day.execute(
            "SELECT body FROM record WHERE keyframe < n LIMIT 1 OFFSET 9"
        ).fetchone()
    whole = file.read_bytes()
    damage(file, whole.index(keyframe) + 50)
    assert len(times_s(path)) == before - 6
    file.write_bytes(whole)
    damage(file, whole.index(later) + 50)
    assert len(times_s(path)) == before - 1


def test_a_header_is_there_twice_so_a_damaged_one_costs_nothing(path):
    (file,) = day_files(path)
    before = times_s(path)
    with closing(sqlite3.connect(file)) as day:
        (header, other) = day.execute("SELECT body FROM record WHERE keyframe = 0").fetchall()
    damage(file, file.read_bytes().index(header[0]) + 50)
    assert times_s(path) == before
    damage(file, file.read_bytes().index(other[0]) + 50)
    with pytest.raises(ValueError, match="no header of the journal can be read"):
        read(path)


def test_a_controller_leaves_a_damaged_file_as_it_is_and_goes_on_in_a_new_one(path, caplog):
    (file,) = day_files(path)
    damage(file, 20)
    damaged = file.read_bytes()
    with Journal(path) as journal:
        assert journal.header == header_of(JOBS)
        assert len(journal.ticks) == TICKS
        journal.begin(journal.header, len(journal.ticks))
        for step in steps(JOBS, 1):
            journal.tick(step, None)
    assert file.read_bytes() == damaged
    assert len(day_files(path)) == 2
    assert len(caplog.messages) == 1
    ((_, ticks),) = parts(path)
    assert len(ticks) == TICKS + 6


def test_a_controller_whose_file_is_damaged_while_it_runs_loses_no_tick(tmp_path, caplog):
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.begin(header_of(JOBS))
        for n, step in enumerate(steps(JOBS, 2)):
            if n == 6:
                journal._day.checkpoint()
                (file,) = day_files(path)
                journal._day._connection.execute("PRAGMA cache_size = 0")
                content = bytearray(file.read_bytes())
                content[database.PAGE_BYTES : database.PAGE_BYTES + 8] = bytes(8)
                file.write_bytes(content)
            journal.tick(step, None)
    assert len(times_s(path)) == 12
    assert any("the run goes on in a new file" in message for message in caplog.messages)


def test_of_a_journal_of_which_nothing_is_left_a_new_part_begins(path, caplog):
    (file,) = day_files(path)
    file.write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match="no header of the journal can be read"):
        read(path)
    with Journal(path) as journal:
        assert journal.header is None
        journal.begin(header_of(JOBS))
        journal.tick(next(steps(JOBS, 1)), None)
    assert "a new part begins" in caplog.text
    assert len(read(path)[1]) == 1


def test_a_damaged_row_with_the_columns_of_another_is_noticed(path):
    """A wrong number in a column would otherwise give a tick to another part, or hide it."""
    (file,) = day_files(path)
    before = times_s(path)
    with closing(sqlite3.connect(file)) as day, day:
        day.execute("UPDATE record SET now_s = 1, part = 99 WHERE n = 20")
    assert times_s(path) == before


def test_a_record_that_is_longer_than_a_page_is_read_up_to_the_damage_from_both_sides(tmp_path):
    file = tmp_path / "000001-2026-12-02.db"
    rows = [database.RecordRow(1, 1, 0, 0.0, False, b"{}")]
    rows += [
        database.RecordRow(n, 1, n, float(n), False, os.urandom(100_000)) for n in range(2, 30)
    ]
    database.write_file(file, rows)
    content = file.read_bytes()
    damage(file, content.index(rows[15].record[:40]) + 10)
    with database.opened(file) as day:
        left = {n for (n,) in day.execute("SELECT n FROM record")}
    assert left == {row.n for row in rows} - {16}


# --- kills ----------------------------------------------------------------------------------------


def test_a_kill_at_any_byte_of_a_write_loses_at_most_the_last_tick(tmp_path):
    """The write-ahead log is cut where the kill came, and so is every later byte."""
    path = tmp_path / "j"
    written = []
    with Journal(path) as journal:
        journal.begin(header_of(JOBS))
        (file,) = day_files(path)
        log = beside(file)[0]
        lengths = []
        for step in steps(JOBS, 1):
            journal.tick(step, None)
            written.append(step.observation.now_s)
            lengths.append(log.stat().st_size)
        main_file, content = file.read_bytes(), log.read_bytes()
    copy = tmp_path / "killed"
    copy.mkdir()
    for length in range(lengths[0], lengths[-1] + 1, 4099):
        shutil.rmtree(copy)
        copy.mkdir()
        (copy / file.name).write_bytes(main_file)
        (copy / log.name).write_bytes(content[:length])
        complete = sum(one <= length for one in lengths)
        with Journal(copy) as journal:
            left = [tick.step.observation.now_s for tick in journal.ticks]
            assert left in (written[:complete], written[: complete + 1]), length


def test_damage_in_the_write_ahead_log_costs_at_most_its_minute_and_is_named(tmp_path, caplog):
    """SQLite ends the log at the first damaged byte, without a word."""
    path, copy = tmp_path / "j", tmp_path / "killed"
    copy.mkdir()
    with Journal(path) as journal:
        journal.begin(header_of(JOBS))
        written = list(steps(JOBS, 3))
        for step in written:
            journal.tick(step, None)
        (file,) = day_files(path)
        log = beside(file)[0]
        for one in (file, log):
            shutil.copy(one, copy)
    damage(copy / log.name, 2000)
    with Journal(copy) as journal:
        assert len(journal.ticks) == 12
    assert any(message.endswith("records lost: 6") for message in caplog.messages)


WRITES = """
import sys
from journal_things import header_of, steps
from faro_ops.journal.writing import Journal
with Journal(sys.argv[1]) as journal:
    journal.begin(header_of(5))
    for step in steps(5, 10_000):
        journal.tick(step, None)
        print(step.observation.now_s, flush=True)
"""


def test_a_killed_controller_has_lost_no_tick_that_it_had_written(tmp_path):
    path = tmp_path / "j"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
    }
    command = [sys.executable, "-c", WRITES, str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    told = [float(child.stdout.readline()) for _ in range(30)]
    child.send_signal(signal.SIGKILL)
    told += [float(line) for line in child.stdout.read().splitlines() if line.endswith("0")]
    child.wait()
    left = times_s(path)
    assert left[: len(told)] == told
    assert len(left) <= len(told) + 1
    with Journal(path) as journal:
        assert journal.ticks[-1].step.observation.now_s == left[-1]


def test_a_file_whose_creation_was_interrupted_is_no_part_of_the_journal(path):
    before = times_s(path)
    (path / ".000002-2026-12-02.db").write_bytes(b"begun")
    assert times_s(path) == before
    with Journal(path):
        pass


# --- a full disk ----------------------------------------------------------------------------------


def test_on_a_full_disk_the_oldest_file_makes_room_for_the_next_tick(path, monkeypatch):
    monkeypatch.setattr(database, "FILE_BYTES", 1)
    with Journal(path) as journal:
        journal.begin(journal.header, 1)
        first, second = steps(JOBS, 1).__next__(), list(steps(JOBS, 2))[-1]
        journal.tick(first, None)
        oldest, newest = day_files(path)
        monkeypatch.setattr(database, "FILE_BYTES", 1 << 30)
        fill_disk(monkeypatch, oldest.exists)
        journal.tick(second, None)
    assert day_files(path) == [newest]
    assert times_s(path) == [first.observation.now_s, second.observation.now_s]


def test_a_disk_that_stays_full_costs_the_tick_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "j"
    full = []
    fill_disk(monkeypatch, lambda: bool(full))
    written = []
    with Journal(path) as journal:
        journal.begin(header_of(JOBS))
        for n, step in enumerate(steps(JOBS, 2)):
            full[:] = [1] if n in (3, 4) else []
            if full:
                with pytest.raises(OSError, match="No space left") as raised:
                    journal.tick(step, None)
                assert raised.value.errno == errno.ENOSPC
                continue
            journal.tick(step, None)
            written.append(step.observation.now_s)
    assert times_s(path) == written


def test_sqlite_reports_a_full_disk_as_the_system_does(tmp_path):
    path = tmp_path / "j"
    write(path, 1)
    (file,) = day_files(path)
    day = DayFile(file)
    day._connection.execute("PRAGMA max_page_count = 1")
    large = database.RecordRow(day.records + 1, 1, day.records + 1, 0.0, False, bytes(200_000))
    with pytest.raises(OSError, match="No space left") as raised:
        day.append([large])
    assert raised.value.errno == errno.ENOSPC
    day.close()
    assert len(times_s(path)) == 6


def test_the_newest_file_is_never_deleted_for_room(path):
    assert not make_room(path)
    assert len(day_files(path)) == 1


# --- volumes --------------------------------------------------------------------------------------


def test_a_volume_without_locks_is_refused_in_one_line(tmp_path, monkeypatch):
    """Such as NFS without its lock service, where flock fails."""

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(writing.fcntl, "flock", no_locks)
    with pytest.raises(ValueError, match="no file locks") as refused:
        Journal(tmp_path / "j")
    assert str(refused.value).endswith("name one on a local disk")
    assert "\n" not in str(refused.value)


def test_a_volume_without_shared_memory_is_refused_in_one_line(path, monkeypatch):
    """Where two hosts have a volume, they share no memory, and SQLite has no WAL mode.

    Its VFS "unix-dotfile" is for volumes of this kind.
    """
    (file,) = day_files(path)
    connect = database.connection_to
    monkeypatch.setattr(
        database, "connection_to", lambda one, _="": connect(one, "vfs=unix-dotfile")
    )
    with closing(connect(file)) as day:
        day.execute("PRAGMA journal_mode = DELETE")
    with pytest.raises(ValueError, match="cannot share memory") as refused:
        DayFile(file)
    assert "\n" not in str(refused.value)


def test_a_journal_in_a_folder_that_cannot_be_written_is_read(path):
    before = times_s(path)
    path.chmod(0o500)
    try:
        assert times_s(path) == before
    finally:
        path.chmod(0o700)
