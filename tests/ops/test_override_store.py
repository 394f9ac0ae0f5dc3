"""The orders of `faro set` in a journal, and readers that fail."""

import json
import threading
import time

import pytest
from live_things import JOBS, Still, Wanting
from waiting import PATIENCE_S

from faro_ops import cli
from faro_ops.journal import database
from faro_ops.journal.documents import Texts
from faro_ops.log import say
from faro_ops.operate.loop.loop import run
from faro_ops.operate.memory.override_store import JournalOverrides
from faro_ops.operate.memory.overrides import LastKnown, Override, Watched

NOW_S = time.time()
OF_A = {
    "job": "a",
    "by": "me",
    "from_s": NOW_S - 1,
    "until_s": None,
    "replicas": 2,
    "load": None,
}


@pytest.fixture
def store(tmp_path):
    (tmp_path / "j").mkdir()
    return JournalOverrides(tmp_path / "j")


def write_rows(store, *rows):
    with Texts(store.path.parent, "order").changing() as (_, _, added):
        added += [row if isinstance(row, str) else json.dumps(row) for row in rows]


def damage(store, old, new):
    """Replace a text in the file, whose checksums become wrong."""
    content = store.path.read_bytes()
    assert content.count(old) == 1
    store.path.write_bytes(content.replace(old, new))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text("- job: a\n- job: b\n")
    return path


class TestADamagedFile:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (1, "it must be a mapping with a job"),
            ("[" * 100_000, "it must be a mapping with a job"),
            ({"by": "me", "from_s": 1.0, "replicas": 2}, "it names no job"),
            (
                {"job": "a", "by": "me", "from_s": "x", "replicas": 2},
                "from_s='x' must be a number >= 0",
            ),
            ({"job": "a", "by": 7, "from_s": 1.0, "replicas": 2}, "must be text"),
            ({"job": "a", "by": "me", "from_s": 1.0}, "either replicas or load"),
            (OF_A | {"replica": 2}, "unknown key 'replica'; did you mean 'replicas'?"),
        ],
    )
    def test_one_invalid_order_does_not_lose_the_others(self, store, row, reason):
        write_rows(store, OF_A, row)
        orders = store.read()
        assert [one.replicas for one in orders.valid] == [2]
        (rejected,) = orders.rejected
        assert reason in rejected.reason

    def test_an_order_with_a_damaged_byte_is_named_and_does_not_lose_the_others(self, store):
        write_rows(store, OF_A, OF_A | {"job": "b", "by": "somebody"})
        damage(store, b"somebody", b"someb0dy")
        orders = store.read()
        assert [one.job for one in orders.valid] == ["a"]
        assert "damaged on the disk" in str(orders.rejected[0])

    def test_an_order_whose_kind_is_damaged_is_still_named(self, store):
        write_rows(store, OF_A)
        damage(store, b"order{", b"0rder{")
        assert store.read().valid == ()
        assert len(store.read().rejected) == 1

    @pytest.mark.parametrize("content", [b"[", b"damaged", b"\0" * 8192])
    def test_a_file_that_sqlite_cannot_read_keeps_the_orders_last_known(
        self, store, table, content
    ):
        write_rows(store, OF_A)
        watched = Watched(table, LastKnown(store.read))
        store.path.write_bytes(content)
        with pytest.raises(OSError, match=r"remove it .* the orders last known stay") as raised:
            watched.new()
        assert str(raised.value).isprintable()
        assert watched.new() is None
        assert watched.known.fixed_jobs == ("a",)

    def test_it_does_not_stop_a_start(self, store, table):
        store.path.write_bytes(b"damaged")
        assert Watched(table, LastKnown(store.read)).known.fixed == ()

    def test_faro_set_does_not_overwrite_it(self, tmp_path, capsys):
        run(Still(), Wanting([1, 1]), JOBS, 15.0, journal=tmp_path / "j")
        store = JournalOverrides(tmp_path / "j")
        store.path.write_bytes(b"damaged")
        assert cli.main(["set", "a", "--journal", str(tmp_path / "j"), "--replicas", "2"]) == 2
        message = capsys.readouterr().err
        assert "run.db: damaged (file is not a database); remove it" in message
        assert store.path.read_bytes() == b"damaged"

    def test_a_row_that_this_version_does_not_know_stays_in_the_file(self, store):
        newer = {"job": "b", "by": "me", "from_s": 1.0, "pause": True}
        write_rows(store, newer)
        store.change(adds=Override(job="a", by="me", from_s=NOW_S, replicas=2))
        first, _ = Texts(store.path.parent, "order").read()
        assert json.loads(first.body) == newer


def test_a_kill_at_any_byte_of_an_order_leaves_all_orders_or_all_but_this_one(store, tmp_path):
    write_rows(store, OF_A)
    before = store.path.read_bytes()
    reader = database.connection_to(store.path)  # keeps the write-ahead log
    reader.execute("SELECT count(*) FROM text").fetchone()
    store.change(adds=Override(job="b", by="me", from_s=NOW_S, replicas=3))
    log = database.beside(store.path)[0]
    content = log.read_bytes()
    reader.close()
    copy = JournalOverrides(tmp_path / "killed")
    copy.path.parent.mkdir()
    for length in range(0, len(content) + 1, 97):
        for file in database.beside(copy.path):
            file.unlink(missing_ok=True)
        copy.path.write_bytes(before)
        database.beside(copy.path)[0].write_bytes(content[:length])
        assert [one.job for one in copy.read().valid] in (["a"], ["a", "b"]), length
        assert copy.read().rejected == ()


class TestTwoWriters:
    def test_orders_that_many_people_set_at_once_are_all_kept(self, store, monkeypatch):
        monkeypatch.setattr(database, "WAIT_S", PATIENCE_S)
        jobs = [f"j{n}" for n in range(20)]

        def order(job):
            store.change(adds=Override(job=job, by="me", from_s=NOW_S, replicas=2))

        threads = [threading.Thread(target=order, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(one.job for one in store.read().valid) == sorted(jobs)

    def test_one_who_waits_too_long_is_told_and_changes_nothing(self, store, monkeypatch):
        monkeypatch.setattr(database, "WAIT_S", 0.05)
        with (
            Texts(store.path.parent, "order").changing(),
            pytest.raises(OSError, match="another process has been writing it"),
        ):
            store.change(adds=Override(job="a", by="me", from_s=NOW_S, replicas=2))
        assert store.read().valid == ()

    def test_a_controller_reads_orders_while_another_is_being_written(self, store):
        write_rows(store, OF_A)
        with Texts(store.path.parent, "order").changing() as (_, _, added):
            added.append(json.dumps(OF_A | {"job": "b"}))
            assert [one.job for one in store.read().valid] == ["a"]
        assert [one.job for one in store.read().valid] == ["a", "b"]


class TestTheTable:
    def test_a_table_that_could_not_be_read_is_read_again_although_it_has_not_changed(
        self, table, monkeypatch
    ):
        watched = Watched(table)
        table.write_text("- job: a\n- job: c\n")
        read = watched._read_table

        def unreadable(path):
            raise OSError("stale file handle")

        monkeypatch.setattr(watched, "_read_table", unreadable)
        with pytest.raises(OSError, match="stale"):
            watched.new()
        monkeypatch.setattr(watched, "_read_table", read)
        assert [job.name for job in watched.new().jobs] == ["a", "c"]

    def test_orders_take_effect_while_the_table_is_damaged(self, table, store):
        watched = Watched(table, LastKnown(store.read))
        table.write_text("- job: a\n- job: a\n")
        store.change(adds=Override(job="b", by="me", from_s=NOW_S - 1, replicas=3))
        assert watched.new().fixed_jobs == ("b",)
        with pytest.raises(ValueError, match="more than once"):
            watched.new()


class TestTextFromOutside:
    FORGED = "me\nfaro: job 'a': 9 replicas\x1b[2J" + 10_000 * "x"

    def test_who_gave_an_order_is_one_printable_line_of_bounded_length(self):
        order = Override(job="a", by=self.FORGED, from_s=NOW_S, replicas=2)
        assert order.by.isprintable()
        assert len(order.by) <= 200

    def test_an_order_for_a_job_with_any_name_is_one_printable_line(self, table, store):
        before = Watched(table).known
        store.change(adds=Override(job=self.FORGED, by="me", from_s=NOW_S, replicas=2))
        (line,) = before.changes(Watched(table, store.read).known)
        assert line.startswith("not in force: ")
        assert line.isprintable()
        assert len(line) <= 600

    def test_changes_of_the_table_are_printable_lines(self, table):
        before = Watched(table).known
        table.write_text('- {job: a, tenant: "x\\nfaro: forged"}\n- job: b\n')
        assert before.changes(Watched(table).known) == ["job 'a': tenant -> x faro: forged"]

    @pytest.mark.parametrize("reason", ["", "changes"])
    def test_a_log_line_stays_one_line(self, capsys, reason):
        say(self.FORGED, reason)
        assert capsys.readouterr().err.count("\n") == 1


def test_clearing_a_job_that_does_not_exist_removes_its_orders(tmp_path, capsys):
    store = JournalOverrides(tmp_path / "j")
    run(Still(), Wanting([1, 1]), JOBS, 15.0, journal=tmp_path / "j")
    store.change(adds=Override(job="gone", by="me", from_s=NOW_S, replicas=2))
    assert cli.main(["set", "gone", "--journal", str(tmp_path / "j"), "--clear"]) == 0
    assert store.read().valid == ()
    assert cli.main(["set", "gone", "--journal", str(tmp_path / "j"), "--clear"]) == 2
    assert "job='gone' is not in" in capsys.readouterr().err
