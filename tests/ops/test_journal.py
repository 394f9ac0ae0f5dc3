"""The journal of a run of months: one database a day, read across its files, and replayed."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from journal_things import edited, exported
from live_things import Wanting
from observations import observed

from faro_lib.control.tick import Memory, tick
from faro_lib.policies import FairShare
from faro_lib.protocol import CONTESTED, DRIFT_CORRECTED
from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched
from faro_ops.advise.sources.history import history_from_journal
from faro_ops.advise.sources.serving_history import serving_from_journal
from faro_ops.cli import main
from faro_ops.journal import database, lines, pruning, writing
from faro_ops.journal.database import day_files
from faro_ops.journal.reading import newest, parts, parts_at, read, recorded
from faro_ops.journal.ticks import Header, Trouble
from faro_ops.journal.writing import Journal
from faro_ops.operate.controller.controller import changes_since, run_clock
from faro_ops.operate.export.explanation import decision_at
from faro_ops.operate.loop.loop import long_gap_s, run
from faro_ops.operate.loop.resume import resume_run
from faro_ops.operate.memory.overrides import Settings
from faro_ops.protocol import LiveGuardrails

JOBS = (Job("a"), Job("b"))
HEADER = Header("FairShare", JOBS, LiveGuardrails(), 10.0, True, origin_s=0)
TICKS = 60


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
def path(tmp_path):
    return tmp_path / "run.journal"


@pytest.fixture(autouse=True)
def all_ticks_are_kept(monkeypatch):
    monkeypatch.setattr(pruning, "LEVELS", ())


@pytest.fixture
def several_days(path, monkeypatch):
    """A journal whose part goes on over four days."""
    days = iter(range(4))
    for first in range(0, TICKS, TICKS // 4):
        now_s = 1_800_000_000 + 86_400 * next(days)
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        write_ticks(path, first, first + TICKS // 4, replayed_ticks=first or None)
    return path


def times_s(ticks):
    return [one.step.observation.now_s for one in ticks]


ALL_S = [10.0 * (n + 1) for n in range(TICKS)]


# --- days -----------------------------------------------------------------------------------------


def test_each_day_has_a_file_and_a_part_goes_on_from_one_to_the_next(several_days):
    assert [file.name for file in day_files(several_days)] == [
        "000001-2027-01-15.db",
        "000002-2027-01-16.db",
        "000003-2027-01-17.db",
        "000004-2027-01-18.db",
    ]
    ((header, ticks),) = parts(several_days)
    assert header == HEADER
    assert times_s(ticks) == ALL_S


def test_a_day_that_ends_while_a_run_goes_on_begins_a_file(path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    with Journal(path) as journal:
        journal.begin(HEADER)
        for n in range(12):
            monkeypatch.setattr(time, "time", lambda day=n // 6: 1_800_000_000 + 86_400.0 * day)
            seen = observed([4, 4], now_s=10.0 * (n + 1), minute=n // 6)
            _, step = tick(
                FairShare(), HEADER.guardrails, JOBS, Memory.start(FairShare(), JOBS), seen
            )
            journal.tick(step, None)
    assert len(day_files(path)) == 2
    ((_, ticks),) = parts(path)
    assert times_s(ticks) == ALL_S[:12]


def test_a_clock_that_is_set_back_a_day_mixes_up_no_files(path, monkeypatch):
    for day, first in ((1, 0), (0, 20), (1, 40)):
        now_s = 1_800_000_000 + 86_400 * day
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        write_ticks(path, first, first + 20, replayed_ticks=first or None)
    assert times_s(read(path)[1]) == ALL_S


def test_a_long_file_is_followed_by_another_of_the_same_day(path, monkeypatch):
    monkeypatch.setattr(database, "FILE_BYTES", 1)
    write_ticks(path, last=5)
    assert len({file.name.partition("-")[2] for file in day_files(path)}) == 1
    assert len(day_files(path)) == 6, "the header was written at the start"
    assert times_s(read(path)[1]) == ALL_S[:5]


def test_the_newest_ticks_are_read_without_the_files_before(several_days):
    for file in day_files(several_days)[:-1]:
        file.write_bytes(b"damaged")
    header, ticks = newest(several_days, 10)
    assert header == HEADER
    assert times_s(ticks)[-10:] == ALL_S[-10:]


def test_the_newest_ticks_are_read_from_as_many_files_as_have_them(several_days):
    assert times_s(newest(several_days, 40)[1])[-40:] == ALL_S[-40:]


def test_a_run_resumes_from_several_days_as_from_one(several_days, tmp_path):
    write_ticks(tmp_path / "one")
    pasts = []
    for one in (several_days, tmp_path / "one"):
        with Journal(one) as journal:
            pasts.append(resume_run(journal, FairShare(), HEADER))
    assert pasts[0].ticks == pasts[1].ticks == TICKS
    assert pasts[0].observation.now_s == pasts[1].observation.now_s
    np.testing.assert_array_equal(pasts[0].memory.guard.target, pasts[1].memory.guard.target)


def test_a_run_that_resumes_goes_on_in_its_part(path):
    write_ticks(path, last=30)
    write_ticks(path, 30, TICKS, replayed_ticks=30)
    ((_, ticks),) = parts(path)
    assert times_s(ticks) == ALL_S
    assert [one.replayed_ticks for one in ticks if one.replayed_ticks] == [30]
    assert times_s(newest(path, 60)[1]) == ALL_S


def test_the_kinds_of_replica_are_read_back(path):
    header = replace(HEADER, jobs=(Job("a", replica=Batched(8, 0.01, 0.03, 0.002)), Job("b")))
    write_ticks(path, last=2, header=header)
    assert read(path)[0] == header


def test_what_was_wrong_with_a_job_and_with_the_request_is_read_back(path):
    trouble = {"a": Trouble("missing", "status 503", 12.0)}
    with Journal(path) as journal:
        journal.begin(HEADER)
        seen = observed([4, 4], now_s=10.0)
        _, step = tick(FairShare(), HEADER.guardrails, JOBS, Memory.start(FairShare(), JOBS), seen)
        journal.tick(step, "OSError: away", (1,), trouble)
    (one,) = read(path)[1]
    assert (one.error, one.failed, one.troubled) == ("OSError: away", (1,), trouble)


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
        return resume_run(journal, Wanting([4, 2]), journal.header).memory.guard


def test_what_was_requested_is_remembered_although_the_policy_now_decides_otherwise(path):
    guard = guard_after(path, 45.0)
    assert guard.target.tolist() == [3, 2]


@pytest.mark.parametrize(
    "of_journal",
    [history_from_journal, lambda path: serving_from_journal(path).history],
    ids=["recommend", "audit"],
)
def test_the_counts_of_all_days_are_known(several_days, of_journal):
    assert of_journal(str(several_days)).today[0, :10].tolist() == [
        6.0 * minute + 5 for minute in range(10)
    ]


def test_only_the_owner_reads_a_journal(path):
    write_ticks(path)
    assert {one.stat().st_mode & 0o777 for one in path.iterdir()} <= {0o600, 0o644}
    assert {one.stat().st_mode & 0o777 for one in day_files(path)} == {0o600}
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_second_controller_is_refused_in_one_line(path):
    with Journal(path) as journal:
        journal.begin(HEADER)
        with pytest.raises(ValueError, match="another controller writes this journal") as refused:
            Journal(path)
    assert "\n" not in str(refused.value)
    with Journal(path):
        pass


def test_commands_read_a_journal_while_its_run_writes_it(path):
    with Journal(path) as journal:
        journal.begin(HEADER)
        memory = Memory.start(FairShare(), JOBS)
        for n in range(20):
            seen = observed([4, 4], now_s=10.0 * (n + 1), minute=n // 6)
            memory, step = tick(FairShare(), HEADER.guardrails, JOBS, memory, seen)
            journal.tick(step, None)
            assert times_s(read(path)[1]) == ALL_S[: n + 1]


def test_a_day_that_is_deleted_while_a_command_reads_is_left_out(several_days):
    ticks = recorded(several_days)
    next(ticks)
    database.remove(day_files(several_days)[1])
    left = [tick.step.observation.now_s for _, tick in ticks]
    assert left == ALL_S[1:15] + ALL_S[30:]


@pytest.mark.parametrize("content", ["minute,job,requests\n0,a,5\n", ""])
def test_the_file_of_another_program_is_refused_and_stays_as_it_is(tmp_path, content):
    path = tmp_path / "requests.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match="not a journal of `faro run`, which is a folder"):
        Journal(path)
    assert path.read_text() == content


def test_a_folder_with_other_things_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not a journal of `faro run`"):
        Journal(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.tex"]


# --- a tick of a time -----------------------------------------------------------------------------


def test_the_tick_of_a_time_is_found_in_the_file_that_has_it(several_days):
    found = parts_at(several_days, 205.0)
    assert decision_at(found, 205.0)[1].step.observation.now_s == 200.0
    assert sum(len(ticks) for _, ticks in found) == 3, "with the first and the last"


@pytest.mark.parametrize(
    ("at_s", "told"),
    [(5.0, "is before the first decision, at 10 s"), (1e6, "is after the last decision, at 600 s")],
)
def test_a_time_without_a_tick_is_one_line(several_days, at_s, told):
    with pytest.raises(ValueError, match=told):
        decision_at(parts_at(several_days, at_s), at_s)


def test_the_last_decision_is_looked_for_in_earlier_files_if_all_newer_ticks_are_holds(
    path, monkeypatch, capsys
):
    for day, reason in ((0, "planned"), (1, "hold")):
        monkeypatch.setattr(time, "time", lambda day=day: 1_800_000_000 + 86_400.0 * day)
        with Journal(path) as journal:
            journal.begin(HEADER, replayed_ticks=6 * day or None)
            for n in range(6 * day, 6 * day + 6):
                seen = observed([4, 4], now_s=10.0 * (n + 1))
                policy = FairShare()
                _, step = tick(policy, LiveGuardrails(), JOBS, Memory.start(policy, JOBS), seen)
                plan = replace(step.plan, reason=(reason, "hold"))
                journal.tick(replace(step, plan=plan), None)
    assert main(["explain", str(path)]) == 0
    assert "FairShare at 60 s" in capsys.readouterr().out


# --- a clock that was set back --------------------------------------------------------------------


@pytest.fixture
def ahead(path):
    """A journal whose last tick is an hour after now."""
    origin_s = int(time.time()) + 3600 - 10 * TICKS
    write_ticks(path, header=replace(HEADER, origin_s=origin_s))
    return path


def resumed(path):
    """(clock, changes, what is resumed) of a controller that starts with a journal."""
    with Journal(path) as journal:
        clock = run_clock(journal, threading.Event())
        changes = changes_since(journal, Settings(JOBS, {}), LiveGuardrails(), clock)
        header = replace(HEADER, origin_s=clock.origin_s, start_s=clock.now_s, changes=changes)
        past = resume_run(journal, FairShare(), header, clock.now_s)
        _, step = tick(FairShare(), LiveGuardrails(), JOBS, past.memory, seen_at(clock.now_s))
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
        again = run_clock(journal, threading.Event())
        assert again.origin_s == clock.origin_s
        assert changes_since(journal, Settings(JOBS, {}), LiveGuardrails(), again) == ()


def test_the_counts_before_the_clock_was_set_back_are_still_known(ahead):
    resumed(ahead)
    history = history_from_journal(str(ahead))
    assert history.today[0, :10].tolist() == [6.0 * minute + 5 for minute in range(10)]


def test_a_last_tick_that_is_less_than_a_tick_ahead_moves_no_time_0(path):
    origin_s = int(time.time()) - 10 * TICKS + 5
    write_ticks(path, header=replace(HEADER, origin_s=origin_s))
    with Journal(path) as journal:
        assert run_clock(journal, threading.Event()).origin_s == origin_s


def test_a_guardrail_with_another_value_begins_a_part_and_is_named(path):
    write_ticks(path)
    guardrails = LiveGuardrails(max_scale_down=0.2)
    with Journal(path) as journal:
        clock = run_clock(journal, threading.Event())
        (change,) = changes_since(journal, Settings(JOBS, {}), guardrails, clock)[-1:]
        assert change == "guardrail max_scale_down: None -> 0.2"
        with pytest.raises(ValueError, match="written by a run with other guardrails"):
            resume_run(journal, FairShare(), replace(HEADER, guardrails=guardrails))
        header = replace(HEADER, guardrails=guardrails, changes=(change,))
        assert resume_run(journal, FairShare(), header).ticks is None


# --- faro export and faro replay ------------------------------------------------------------------


def test_an_exported_journal_has_the_same_ticks_as_the_journal(several_days, tmp_path, capsys):
    assert main(["export", str(several_days)]) == 0
    file = tmp_path / "run.jsonl"
    file.write_text(capsys.readouterr().out)
    (header, whole), (again, ticks) = read(several_days), read(file)
    assert header == again
    assert times_s(ticks) == times_s(whole)
    for one, other in zip(ticks, whole, strict=True):
        np.testing.assert_array_equal(
            one.step.observation.arrivals_per_min, other.step.observation.arrivals_per_min
        )
        assert one.step.plan.reason == other.step.plan.reason
    assert exported(file) == exported(several_days)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"target": [4, 4]', '"target": [4]', "not a tick"),
        ('"minute": 1', '"minute": "x"', "not a tick"),
        ('"kind": "tick"', '"kind": "tock"', "line 2: not a line of a journal"),
        ('"slo_s"', '"slo"', "written by another version of Faro"),
    ],
)
def test_a_line_that_is_no_record_is_named_in_one_line(path, capsys, old, new, told):
    write_ticks(path, last=3)
    assert main(["explain", str(edited(path, old, new))]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1


def test_a_line_that_is_too_long_for_a_record_is_named_in_one_line(path, monkeypatch):
    write_ticks(path, last=3)
    file = edited(path, "x", "x")
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1 << 20)
    with file.open("ab") as content:
        content.write(b"7" * (1 << 24) + b"\n")
    with pytest.raises(ValueError, match="line 5: not a line of a journal"):
        read(file)


def replayed(path, capsys, *options):
    assert main(["replay", str(path), *options, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_policy_of_the_journal_decides_again_what_it_decided(several_days, capsys):
    rows = replayed(several_days, capsys, "--policy", "FairShare")
    assert len(rows) == TICKS
    assert all(job["recorded"] == job["replayed"] for row in rows for job in row["plan"].values())


def test_another_policy_shows_where_it_would_have_decided_otherwise(path, capsys):
    write_ticks(path, last=60)  # at most one request a second: one replica is enough
    rows = replayed(path, capsys, "--policy", "AIAD")
    assert any(job["replayed"] < job["recorded"] for row in rows for job in row["plan"].values())
    assert main(["replay", str(path), "--policy", "AIAD"]) == 0
    shown = capsys.readouterr().out
    assert "60 decisions" in shown
    assert {"recorded", "replayed", "different"} <= set(shown.splitlines()[1].split())


def test_what_the_recorded_policy_requested_is_no_change_by_another_client(path, capsys):
    write_ticks(path, last=60)
    rows = replayed(path, capsys, "--policy", "AIAD")
    reasons = {job["reason"] for row in rows for job in row["plan"].values()}
    assert not reasons & {CONTESTED, DRIFT_CORRECTED}
    assert any(job["replayed"] < job["recorded"] for job in rows[-1]["plan"].values()), (
        "to the last decision"
    )


def test_a_journal_without_decisions_and_an_unknown_policy_are_one_line(path, capsys):
    write_ticks(path, last=0)
    assert main(["replay", str(path)]) == 2
    assert "no decision has been made yet" in capsys.readouterr().err
    write_ticks(path, last=5)
    assert main(["replay", str(path), "--policy", "Fairshare"]) == 2
    assert "FairShare" in capsys.readouterr().err


def test_a_run_continues_at_most_the_ticks_that_it_replays(path, monkeypatch):
    monkeypatch.setattr(writing, "REPLAYED_TICKS", 20)
    write_ticks(path)
    with Journal(path) as journal:
        assert times_s(journal.ticks) == ALL_S[-20:]
    assert len(list(recorded(path))) == TICKS
