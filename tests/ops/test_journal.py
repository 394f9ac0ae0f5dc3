"""The journal of a run of months: rotated, compressed, read across its files, and replayed."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from journal_things import edit
from live_things import Wanting
from observations import observed

from faro_lib.control.guardrails import GuardrailConfig
from faro_lib.control.tick import Memory, tick
from faro_lib.policies import FairShare
from faro_lib.protocol import CONTESTED, DRIFT_CORRECTED
from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched, replica_of
from faro_ops.advise.audit.records import records_from_journal
from faro_ops.advise.sources.load_history import history_from_journal
from faro_ops.cli import main
from faro_ops.cli.controller import changes_since, clock_of
from faro_ops.operate.export.explanation import decision_at
from faro_ops.operate.loop.clock import Clock
from faro_ops.operate.loop.loop import long_gap_s, run
from faro_ops.operate.memory import journal as journals
from faro_ops.operate.memory import records, rotation, thinning
from faro_ops.operate.memory.journal import Header, Journal, parts, read
from faro_ops.operate.memory.overrides import Settings
from faro_ops.operate.memory.records import decoded

JOBS = (Job("a"), Job("b"))
HEADER = Header("FairShare", JOBS, GuardrailConfig(), 10.0, True, origin_s=0)
REPLAYED_TICKS = 20
TICKS = 3 * REPLAYED_TICKS


def write_ticks(path, first=0, last=TICKS, header=HEADER, **options):
    """Ticks of ten seconds whose request counts are their number."""
    policy = FairShare()
    memory = Memory.start(policy, header.jobs)
    with Journal(path) as journal:
        journal.begin(header, **options)
        for n in range(first, last):
            counts = np.full((len(header.jobs), 1), n)
            seen = observed(
                [4, 4], capacity=8, now_s=10.0 * (n + 1), minute=n // 6 + 1, arrivals_per_min=counts
            )
            memory, step = tick(policy, header.guardrails, header.jobs, memory, seen)
            journal.tick(step, None)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(rotation, "MAX_BYTES", 10_000)
    monkeypatch.setattr(journals, "REPLAYED_TICKS", REPLAYED_TICKS)


def times_s(ticks):
    return [one.step.observation.now_s for one in ticks]


def test_a_long_journal_is_rotated_and_its_archives_have_what_it_no_longer_has(tmp_path, often):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    assert rotation.archives(path)
    assert len(read(path)[1]) < TICKS
    ((header, ticks),) = parts(path)
    assert header == HEADER
    assert times_s(ticks) == [10.0 * (n + 1) for n in range(TICKS)]


def test_the_kinds_of_replica_are_read_back(tmp_path):
    jobs = Job("a", replica=Batched(8, 0.01, 0.03, 0.002)), Job("b")
    header = replace(HEADER, jobs=jobs)
    write_ticks(tmp_path / "run.jsonl", last=2, header=header)
    assert read(tmp_path / "run.jsonl")[0].jobs == jobs


def test_a_journal_from_before_the_kinds_of_replica_has_serial_ones(tmp_path):
    path = tmp_path / "run.jsonl"
    write_ticks(path, last=2)
    edit(path, ', "replica": {"kind": "serial"}', "")
    assert '"replica":' not in path.read_text().splitlines()[0]
    assert read(path)[0].jobs == JOBS


def test_the_journal_and_its_archives_stay_bounded(tmp_path, often, monkeypatch):
    monkeypatch.setattr(thinning, "MAX_BYTES", 4_000)
    path = tmp_path / "run.jsonl"
    write_ticks(path, last=6 * TICKS)
    archives = list(tmp_path.glob("*.gz"))
    assert archives
    assert sum(one.stat().st_size for one in archives) <= 4_000
    assert not (tmp_path / "run.jsonl.000000.gz").exists(), "the oldest is the first to go"
    ticks = parts(path)[-1][1]  # the newest, without a gap
    assert set(np.diff(times_s(ticks))) == {10.0}
    assert times_s(ticks)[-1] == 60.0 * TICKS


def test_a_run_resumes_from_a_rotated_journal_as_from_one_that_was_not(
    tmp_path, often, monkeypatch
):
    write_ticks(tmp_path / "rotated.jsonl")
    monkeypatch.setattr(rotation, "MAX_BYTES", 1 << 30)
    write_ticks(tmp_path / "whole.jsonl")
    pasts = []
    for name in ("rotated.jsonl", "whole.jsonl"):
        with Journal(tmp_path / name) as journal:
            pasts.append(journal.resume(FairShare(), HEADER))
    assert pasts[0].ticks == pasts[1].ticks == REPLAYED_TICKS
    assert pasts[0].observation.now_s == pasts[1].observation.now_s
    np.testing.assert_array_equal(pasts[0].memory.guard.target, pasts[1].memory.guard.target)


class Obedient:
    """A cluster that has the replicas that were requested last."""

    def __init__(self, target):
        self.now_s = 0.0
        self.target = target

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        return observed(self.target, now_s=self.now_s)

    def apply(self, target, drop):
        self.target = target.tolist()


def guard_after(path, until_s):
    """The memory of a run that resumes with a policy of the same name that decides otherwise."""
    run(Obedient([1, 1]), Wanting([3, 2]), JOBS, until_s, journal=path)
    with Journal(path) as journal:
        return journal.resume(Wanting([4, 2]), journal.header).memory.guard


def test_the_requests_of_an_earlier_version_of_the_policy_are_no_changes_by_another_client(
    tmp_path,
):
    assert not guard_after(tmp_path / "j", until_s=105.0).contested(GuardrailConfig()).any()


def test_a_resumed_run_remembers_the_recorded_request_and_not_what_the_policy_would_request_now(
    tmp_path,
):
    assert guard_after(tmp_path / "j", until_s=25.0).target.tolist() == [3, 2]


def test_a_resumed_run_goes_on_in_the_next_generation(tmp_path, often):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    before = len(rotation.archives(path))
    write_ticks(path, first=TICKS, last=3 * TICKS, replayed_ticks=REPLAYED_TICKS)
    assert len(rotation.archives(path)) > before
    ((_, ticks),) = parts(path)
    assert len(ticks) == 3 * TICKS


def test_a_change_of_the_jobs_begins_a_part_and_a_rotation_does_not(tmp_path, often):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    write_ticks(path, TICKS, 2 * TICKS, replace(HEADER, jobs=(Job("a"), Job("c"))))
    assert [[job.name for job in header.jobs] for header, _ in parts(path)] == [
        ["a", "b"],
        ["a", "c"],
    ]
    assert [job.name for job in read(path)[0].jobs] == ["a", "c"]
    assert decision_at(parts(path), 55.0)[1].step.observation.now_s == 50.0


@pytest.fixture
def changed_twice(tmp_path):
    """Three parts of ten minutes: a job is replaced, and comes back with another SLO."""
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    write_ticks(path, TICKS, 2 * TICKS, replace(HEADER, jobs=(Job("a"), Job("c"))))
    again = replace(HEADER, jobs=(Job("a"), Job("b", slo_s=0.5)))
    write_ticks(path, 2 * TICKS, 3 * TICKS, again)
    return str(path)


@pytest.mark.parametrize(
    "read_history",
    [history_from_journal, lambda path: records_from_journal(path).history],
    ids=["history", "records"],
)
def test_a_history_has_all_parts_of_a_journal_with_the_same_jobs_and_no_part_with_others(
    changed_twice, read_history
):
    minute = np.arange(30)
    replaced = (minute >= 10) & (minute < 20)
    last_tick = np.where(replaced, np.nan, 6.0 * minute + 5)  # a count is the number of its tick
    np.testing.assert_array_equal(read_history(changed_twice).today, [last_tick, last_tick])


def test_faro_shadow_scores_all_parts_of_a_journal_with_the_same_jobs(changed_twice, monkeypatch):
    scored = []

    def plan_scores(header, ticks):
        scored.extend(ticks)
        raise ValueError("too few minutes")

    monkeypatch.setattr("faro_ops.advise.audit.shadow.plan_scores", plan_scores)
    main(["shadow", changed_twice])
    assert times_s(scored) == [
        10.0 * (n + 1) for n in range(3 * TICKS) if not TICKS <= n < 2 * TICKS
    ]


def test_a_rotation_that_was_interrupted_is_repeated_without_a_record_twice(tmp_path):
    path = tmp_path / "run.jsonl"
    write_ticks(path, last=50)
    whole = path.read_bytes()
    rotation.rotate(path, 20).close()
    path.write_bytes(whole)  # as if the archive had been written, and the journal not replaced
    assert len(parts(path)[0][1]) == 50
    rotation.rotate(path, 20).close()
    assert len(parts(path)[0][1]) == 50
    assert len(list(tmp_path.glob("*.gz"))) == 1


def test_a_second_controller_is_refused_after_a_rotation(tmp_path, often):
    path = tmp_path / "run.jsonl"
    with Journal(path) as journal:
        journal.begin(HEADER)
        journal._max_bytes = 0
        memory = Memory.start(FairShare(), JOBS)
        for n in range(3 * REPLAYED_TICKS):
            memory, step = tick(
                FairShare(),
                HEADER.guardrails,
                JOBS,
                memory,
                observed([4, 4], now_s=10.0 * (n + 1), minute=n // 6),
            )
            journal.tick(step, None)
        assert rotation.archives(path)
        with pytest.raises(ValueError, match="another controller writes this journal"):
            Journal(path)


def test_of_a_damaged_archive_the_records_before_the_damage_are_read_and_one_line_names_it(
    tmp_path, often, caplog
):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    archive = rotation.archives(path)[0]
    archived = parts(path)[0][1]
    archive.write_bytes(archive.read_bytes()[:-40])
    found = parts(path)[0][1]
    assert len(found) < len(archived)
    assert times_s(found)[0] == 10.0
    assert times_s(found)[-1] == 10.0 * TICKS
    assert caplog.messages == [
        f"{archive}: damage (a damaged archive of a journal (its end is missing)) skipped"
    ]


def test_a_line_that_is_too_long_for_a_record_is_skipped_and_the_others_are_read(
    tmp_path, often, caplog, monkeypatch
):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    archive = rotation.archives(path)[0]
    archived = parts(path)[0][1]
    first, rest = gzip.decompress(archive.read_bytes()).split(b"\n", 1)
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1 << 20)
    archive.write_bytes(gzip.compress(first + b"\n" + b"7" * (1 << 24) + b"\n" + rest))
    found = parts(path)[0][1]
    assert times_s(found) == times_s(archived)
    (message,) = caplog.messages
    assert message == f"{archive}: 1 damaged line (line 2: it is longer than 1 MiB) skipped"


def test_what_is_kept_of_a_line_without_an_end_does_not_grow_with_it(tmp_path, monkeypatch):
    """Else each chunk would copy all before it: the time would be quadratic."""
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 100)
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"a\n" + b"b" * (3 * records.CHUNK_BYTES) + b"\nc\n" + b"unfinished")
    assert list(records.complete_lines(path)) == [b"a", b"b" * 101, b"c"]


def test_a_damaged_archive_from_before_the_time_of_interest_does_no_harm(tmp_path, often):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    archive = rotation.archives(path)[0]
    archive.write_bytes(archive.read_bytes()[:100])
    os.utime(archive, (1000.0, 1000.0))
    ((_, ticks),) = parts(path, since_s=2000.0)
    assert times_s(ticks)[-1] == 10.0 * TICKS


def test_only_the_owner_reads_an_archive(tmp_path, often):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    assert {file.stat().st_mode & 0o777 for file in (path, *rotation.archives(path))} == {0o600}


def test_the_last_decision_is_explained_without_the_archives(tmp_path, often, monkeypatch, capsys):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    archives = rotation.archives(path)
    for archive in archives:
        archive.write_bytes(b"damaged")
    edit(path, '"reason": ["hold", "hold"]', '"reason": ["planned", "hold"]')
    assert main(["explain", str(path)]) == 0
    assert f"FairShare at {10 * TICKS} s" in capsys.readouterr().out


def test_the_last_decision_is_looked_for_in_the_archives_if_all_newer_ones_are_holds(
    tmp_path, often, capsys
):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    archive = rotation.archives(path)[0]
    edit(archive, '"reason": ["hold", "hold"]', '"reason": ["planned", "hold"]', 1)
    assert main(["explain", str(path)]) == 0
    assert "FairShare at 60 s" in capsys.readouterr().out


# --- damage ---------------------------------------------------------------------------------------


def damage(path, line, place=100):
    """Change one byte of a line."""
    lines = path.read_bytes().splitlines(keepends=True)
    one = bytearray(lines[line])
    one[place] ^= 1
    path.write_bytes(b"".join([*lines[:line], bytes(one), *lines[line + 1 :]]))
    return bytes(one)


def test_a_checksum_that_is_no_number_any_more_is_damage():
    line = b'{"kind": "resume", "crc": "2f5d6340"}'
    assert decoded(line) == {"kind": "resume"}
    with pytest.raises(ValueError, match="its checksum is damaged"):
        decoded(line.replace(b"f", b"g"))


@pytest.mark.parametrize("place", [5, 100, 300, -5])
def test_a_damaged_byte_prevents_no_start_and_costs_no_other_minute(tmp_path, caplog, place):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    line = damage(path, 2 + 12, place)  # the first tick of the third minute
    with Journal(path) as journal:
        assert journal.header == HEADER
        lost = {10.0 * n for n in range(13, 19)}
        assert set(times_s(journal.ticks)) == {10.0 * (n + 1) for n in range(TICKS)} - lost
        assert journal.resume(FairShare(), HEADER).observation.now_s == 10.0 * TICKS
    aside = tmp_path / "run.jsonl.damaged"
    assert line in aside.read_bytes()
    (message,) = caplog.messages
    assert f"set aside in {aside}; the others are used" in message
    caplog.clear()
    with Journal(path):
        assert not caplog.messages, "the damage is no longer in the journal"


def test_one_damaged_tick_within_a_minute_costs_only_itself(tmp_path):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    damage(path, 2 + 15)
    with Journal(path) as journal:
        assert len(journal.ticks) == TICKS - 1


def test_a_header_stands_twice_so_a_damaged_one_costs_nothing(tmp_path):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    damage(path, 0)
    with Journal(path) as journal:
        assert journal.header == HEADER
        assert len(journal.ticks) == TICKS


def test_without_any_header_the_lines_are_set_aside_and_the_archives_stay(tmp_path, often, caplog):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    archived = rotation.archives(path)
    assert archived
    damage(path, 0)
    damage(path, 1)
    assert rotation.archives(path) == archived
    with Journal(path) as journal:
        assert journal.header is None
        journal.begin(HEADER)
    assert "no line is left, and a new part begins" in caplog.text
    assert rotation.archives(path) == archived
    write_ticks(path, first=TICKS, last=3 * TICKS)
    assert rotation.archives(path)[: len(archived)] == archived
    assert times_s([one for _, ticks in parts(path) for one in ticks])[0] == 10.0


def test_ticks_after_a_damaged_change_of_the_jobs_are_not_taken_for_those_before(tmp_path):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    write_ticks(path, TICKS, 2 * TICKS, replace(HEADER, jobs=(Job("a"), Job("c"))))
    for line in (TICKS + 2, TICKS + 3):
        damage(path, line)
    ((header, ticks),) = parts(path)
    assert [job.name for job in header.jobs] == ["a", "b"]
    assert times_s(ticks)[-1] == 10.0 * TICKS


def test_a_header_that_a_crash_left_incomplete_prevents_no_start(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"kind": "begin", "policy": "Fai')
    with Journal(path) as journal:
        assert journal.header is None
        journal.begin(HEADER)
    assert read(path)[0] == HEADER


def test_the_file_of_another_program_is_refused_and_stays_as_it_is(tmp_path):
    path = tmp_path / "requests.csv"
    path.write_text("minute,job,requests\n0,a,5\n")
    with pytest.raises(ValueError, match="not a journal of `faro run`"):
        Journal(path)
    assert path.read_text() == "minute,job,requests\n0,a,5\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_journal_of_an_earlier_version_is_read_and_continued(tmp_path):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    ((_, whole),) = parts(path)
    header, *ticks = [json.loads(line) for line in path.read_text().splitlines()][1:]
    key = {}
    old = [header]
    for record in ticks:  # as it was: every tick with all its fields, and no checksum
        key = record if "of" not in record else key
        both = {name: key[name] | record[name] for name in ("observation", "plan")}
        old.append({"target": key["target"]} | record | both)
    lines = [{name: one[name] for name in one if name not in ("crc", "of")} for one in old]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    ((again, read_back),) = parts(path)
    assert again == HEADER
    assert times_s(read_back) == times_s(whole)
    with Journal(path) as journal:
        assert journal.resume(FairShare(), HEADER).observation.now_s == 10.0 * TICKS


# --- a clock that was set back --------------------------------------------------------------------


@pytest.fixture
def ahead(tmp_path):
    """A journal whose last tick is an hour after now."""
    origin_s = int(time.time()) + 3600 - 10 * TICKS
    write_ticks(tmp_path / "run.jsonl", header=replace(HEADER, origin_s=origin_s))
    return tmp_path / "run.jsonl"


def resumed(path):
    """(clock, changes, what is resumed) of a controller that starts with a journal."""
    with Journal(path) as journal:
        clock = clock_of(journal, threading.Event())
        changes = changes_since(journal, Settings(JOBS, {}), GuardrailConfig(), clock)
        header = replace(HEADER, origin_s=clock.origin_s, start_s=clock.now_s, changes=changes)
        past = journal.resume(FairShare(), header, clock.now_s)
        _, step = tick(FairShare(), GuardrailConfig(), JOBS, past.memory, seen_at(clock.now_s))
        journal.tick(step, None)
    return clock, changes, past


def seen_at(now_s):
    return observed([4, 4], capacity=8, now_s=now_s, minute=int(now_s // 60))


def test_after_the_clock_was_set_back_a_run_goes_on_with_another_time_0_and_one_line(ahead):
    last_s = 10.0 * TICKS
    clock, changes, past = resumed(ahead)
    assert len(changes) == 1
    assert "the clock was set back: time 0 of the run moves from" in changes[0]
    assert past.observation.now_s == last_s
    # Nobody knows how long ago the last request was, so it is forgotten (`loop.run`).
    assert clock.now_s - last_s > long_gap_s(HEADER.tick_s)
    (first, _), (second, ticks) = parts(ahead)
    assert second.origin_s == clock.origin_s < first.origin_s
    assert second.changes == changes
    assert ticks[0].step.observation.now_s > last_s


def test_the_next_start_after_the_clock_was_set_back_continues_the_new_part(ahead):
    clock, _, _ = resumed(ahead)
    with Journal(ahead) as journal:
        again = clock_of(journal, threading.Event())
        assert again.origin_s == clock.origin_s
        assert changes_since(journal, Settings(JOBS, {}), GuardrailConfig(), again) == ()


def test_the_counts_before_the_clock_was_set_back_are_still_known(ahead):
    resumed(ahead)
    history = history_from_journal(str(ahead))
    assert history.today[0, :10].tolist() == [6.0 * minute + 5 for minute in range(10)]


def test_a_last_tick_that_is_less_than_a_tick_ahead_moves_no_time_0(tmp_path):
    path = tmp_path / "run.jsonl"
    origin_s = int(time.time()) - 10 * TICKS + 5
    write_ticks(path, header=replace(HEADER, origin_s=origin_s))
    with Journal(path) as journal:
        assert clock_of(journal, threading.Event()).origin_s == origin_s


# --- journals of earlier versions -----------------------------------------------------------------


@pytest.fixture
def without_the_brake(tmp_path):
    """A journal of a version that had no `max_scale_down` and recorded no `changes`."""
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    edit(path, ', "max_scale_down": null', "")
    edit(path, ', "changes": []', "")
    assert "max_scale_down" not in path.read_text()
    return path


@pytest.mark.parametrize("changes", [(), ("job 'a': slo_s 0.72 -> 0.3",)])
def test_a_journal_without_a_guardrail_is_continued_and_one_line_says_what_is_assumed(
    without_the_brake, caplog, changes
):
    guardrails = GuardrailConfig(max_scale_down=0.2)
    header = replace(HEADER, guardrails=guardrails, changes=changes)
    with Journal(without_the_brake) as journal:
        past = journal.resume(FairShare(), header)
        assert past.observation.now_s == 10.0 * TICKS
        _, step = tick(FairShare(), guardrails, JOBS, past.memory, seen_at(10.0 * TICKS + 10))
        journal.tick(step, None)
    assert len(caplog.messages) == 1
    assert "without max_scale_down; max_scale_down=None is assumed" in caplog.messages[0]
    old, new = (one.guardrails.max_scale_down for one, _ in parts(without_the_brake))
    assert (old, new) == (None, 0.2)


def test_a_guardrail_that_was_assumed_as_it_is_now_begins_no_part(without_the_brake):
    with Journal(without_the_brake) as journal:
        assert journal.resume(FairShare(), HEADER).ticks == TICKS
    assert len(parts(without_the_brake)) == 1


def test_an_absent_guardrail_is_no_change_by_an_operator(without_the_brake):
    guardrails = GuardrailConfig(max_scale_down=0.2)
    with Journal(without_the_brake) as journal:
        clock = Clock(HEADER.origin_s)
        assert changes_since(journal, Settings(JOBS, {}), guardrails, clock) == ()


# --- faro replay ----------------------------------------------------------------------------------


def replayed(path, capsys, *options):
    assert main(["replay", str(path), *options, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_policy_of_the_journal_decides_again_what_it_decided(tmp_path, often, capsys):
    path = tmp_path / "run.jsonl"
    write_ticks(path)
    rows = replayed(path, capsys, "--policy", "FairShare")
    assert len(rows) == TICKS
    assert all(job["recorded"] == job["replayed"] for row in rows for job in row["plan"].values())


def test_another_policy_shows_where_it_would_have_decided_otherwise(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    write_ticks(path, last=60)  # at most one request a second: one replica is enough
    rows = replayed(path, capsys, "--policy", "AIAD")
    assert any(job["replayed"] < job["recorded"] for row in rows for job in row["plan"].values())
    assert main(["replay", str(path), "--policy", "AIAD"]) == 0
    shown = capsys.readouterr().out
    assert "60 decisions" in shown
    assert {"recorded", "replayed", "different"} <= set(shown.splitlines()[1].split())


def test_what_the_recorded_policy_requested_is_no_change_by_another_client(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    write_ticks(path, last=60)
    rows = replayed(path, capsys, "--policy", "AIAD")
    reasons = {job["reason"] for row in rows for job in row["plan"].values()}
    assert not reasons & {CONTESTED, DRIFT_CORRECTED}
    assert any(job["replayed"] < job["recorded"] for job in rows[-1]["plan"].values()), (
        "to the last decision"
    )


def test_a_journal_without_decisions_and_an_unknown_policy_are_one_line(tmp_path, capsys):
    path = tmp_path / "run.jsonl"
    write_ticks(path, last=0)
    assert main(["replay", str(path)]) == 2
    assert "no decision has been made yet" in capsys.readouterr().err
    write_ticks(path, last=5)
    assert main(["replay", str(path), "--policy", "Fairshare"]) == 2
    assert "FairShare" in capsys.readouterr().err


def test_a_journal_keeps_the_kind_of_each_replica(tmp_path):
    jobs = (
        Job("a"),
        Job("b", replica=replica_of({"kind": "batched", "max_batch": 8, "base_s": 0.02})),
    )
    header = Header("Faro-Sum", jobs, GuardrailConfig(), 10.0, False)
    with Journal(tmp_path / "run.jsonl") as journal:
        journal.begin(header)
    assert read(tmp_path / "run.jsonl")[0].jobs == jobs
