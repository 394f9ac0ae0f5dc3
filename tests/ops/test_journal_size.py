"""A journal stays small for weeks: keyframes, thinned archives, and readers that stream."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from checkouts import ROOT
from journal_things import header_of, steps

from faro_ops.cli import main
from faro_ops.operate.export.explanation import decision_at
from faro_ops.operate.memory import rotation, thinning
from faro_ops.operate.memory.journal import (
    Journal,
    Tick,
    arrivals,
    counts_by_minute,
    parts,
    parts_at,
    read,
    recorded,
    replay,
)
from faro_ops.operate.memory.records import step_of, tick_record

DAY_TICKS = 8640
MIB = 1 << 20


def write(path, jobs, minutes, **options):
    """A journal of `jobs` jobs whose records are all in one archive, and its steps."""
    written = list(steps(jobs, minutes, **options))
    with Journal(path) as journal:
        journal.begin(header_of(jobs))
        for step in written:
            journal.tick(step, None)
    if not rotation.archives(path):
        rotation.rotate(path, 1).close()
    return written


def sizes_of(archive):
    """Bytes of an archive with all its ticks, thinned to one a minute, and to one in five."""
    sizes = [archive.stat().st_size]
    for _, every_s in thinning.LEVELS:
        thinning.thin(archive, every_s)
        sizes.append(archive.stat().st_size)
    return sizes


def test_two_weeks_of_200_jobs_with_a_tick_every_ten_seconds_fit_into_300_mib(tmp_path):
    minutes = 30
    write(tmp_path / "j", 200, minutes + 1)
    (archive,) = rotation.archives(tmp_path / "j")
    whole, by_minute, by_five = sizes_of(archive)
    per_day = 1440 / minutes
    archives = per_day * (whole + 2 * by_minute + 11 * by_five)
    assert archives < thinning.MAX_BYTES, "else the oldest days would be deleted"
    # While it is rotated, the journal is there twice.
    assert thinning.MAX_BYTES + 2 * 2 * rotation.MAX_BYTES < 310 * MIB
    assert archives + 2 * rotation.MAX_BYTES < 300 * MIB


def test_a_tick_is_read_back_to_the_last_bit(tmp_path):
    written = list(steps(20, 3))
    with Journal(tmp_path / "j") as journal:
        journal.begin(header_of(20))
        for step in written:
            journal.tick(step, None)
    for one, step in zip(read(tmp_path / "j")[1], written, strict=True):
        for name in ("mean_latency_s", "arrivals_per_min", "placed", "ongoing", "target"):
            np.testing.assert_array_equal(
                getattr(one.step.observation, name), getattr(step.observation, name)
            )
        np.testing.assert_array_equal(one.step.plan.authority, step.plan.authority)
        assert one.step.plan.reason == step.plan.reason
        assert (one.step.plan.forecast_rps is None) == (step.plan.forecast_rps is None)


def test_a_tick_within_a_minute_has_only_what_differs_from_the_first_tick_of_its_minute():
    first, second, *_ = steps(20, 1)
    record = tick_record(second, None, None, first)
    assert not {"arrivals_per_min", "tail_latency_s"} & set(record["observation"])
    assert "authority" not in record["plan"]
    assert len(json.dumps(record)) < len(json.dumps(tick_record(second, None, None, None))) / 4
    again = step_of(json.loads(json.dumps(record)), first)
    np.testing.assert_array_equal(again.observation.ongoing, second.observation.ongoing)


def age(path, days):
    """Make the archives of a journal so many days old."""
    for archive in rotation.archives(path):
        then = archive.stat().st_mtime - 86_400 * days
        os.utime(archive, (then, then))


@pytest.mark.parametrize(("days", "every_min"), [(0.5, None), (2, 1), (10, 5)])
def test_the_older_an_archive_is_the_fewer_of_its_ticks_are_kept(tmp_path, days, every_min):
    path = tmp_path / "j"
    written = write(path, 5, 31)
    age(path, days)
    before = rotation.archives(path)[0].stat().st_mtime
    thinning.tidy(path)
    assert rotation.archives(path)[0].stat().st_mtime == before
    ticks = [one for one in parts(path)[0][1] if one.step.observation.now_s < 60 * 46]
    minutes = {one.step.observation.minute for one in ticks}
    if every_min is None:
        assert len(ticks) == 180
        return
    assert len(ticks) == len(minutes)
    assert minutes == {16} | {minute for minute in range(16, 46) if minute % every_min == 0}
    of_time = {step.observation.now_s: step for step in written}
    for one in ticks:
        step = of_time[one.step.observation.now_s]
        assert step.plan.forecast_rps is not None, "the ticks with plans are kept"
        assert one.step.target.tolist() == step.target.tolist()
        assert one.step.plan.reason == step.plan.reason
        np.testing.assert_allclose(one.step.plan.authority, step.plan.authority, rtol=1e-4)
        assert one.every_s == 60 * every_min


def test_thinning_again_changes_nothing_and_keeps_the_counts_of_every_minute(tmp_path):
    path = tmp_path / "j"
    write(path, 5, 31)
    whole = arrivals(*parts(path)[0])
    age(path, 10)
    thinning.tidy(path)
    once = rotation.archives(path)[0].read_bytes()
    thinning.tidy(path)
    assert rotation.archives(path)[0].read_bytes() == once
    np.testing.assert_array_equal(arrivals(*parts(path)[0]), whole)


def test_the_tick_at_which_a_service_gains_authority_is_kept(tmp_path):
    path = tmp_path / "j"
    written = list(steps(2, 31))
    with Journal(path) as journal:
        journal.begin(header_of(2))
        for n, step in enumerate(written):
            earned = step.plan.authority.copy()
            earned[0, 0] = n >= 40  # within a minute
            journal.tick(replace(step, plan=replace(step.plan, authority=earned)), None)
    rotation.rotate(path, 1).close()
    age(path, 10)
    thinning.tidy(path)
    times_s = [tick.step.observation.now_s for _, tick in recorded(path)]
    assert written[40].observation.now_s in times_s


def test_a_replay_leaves_out_what_thinning_has_left_over(tmp_path):
    from live_things import Wanting

    thinned = [Tick(step, every_s=60.0) for step in steps(2, 3)]
    whole = [Tick(step) for step in steps(2, 60)]
    pairs = list(replay(Wanting([1, 1]), header_of(2), [*thinned, *whole]))
    assert len(pairs) == len(whole) - 200


def test_the_oldest_archives_are_deleted_first_if_all_are_too_large(tmp_path, monkeypatch):
    path = tmp_path / "j"
    monkeypatch.setattr(rotation, "MAX_BYTES", 20_000)
    write(path, 5, 240)
    archives = rotation.archives(path)
    monkeypatch.setattr(thinning, "MAX_BYTES", 3 * archives[-1].stat().st_size)
    thinning.tidy(path)
    assert rotation.archives(path) == archives[-len(rotation.archives(path)) :]
    assert 1 <= len(rotation.archives(path)) <= 4


def test_explain_reads_only_the_archive_of_the_time_it_is_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "j"
    monkeypatch.setattr(rotation, "MAX_BYTES", 20_000)
    written = write(path, 5, 240)
    archives = rotation.archives(path)
    assert len(archives) > 2
    middle = written[len(written) // 2].observation.now_s
    found = parts_at(path, middle + 5.0)
    assert decision_at(found, middle + 5.0)[1].step.observation.now_s == middle
    assert sum(len(ticks) for _, ticks in found) < len(written) / 2
    with pytest.raises(ValueError, match="is before the first decision, at 960 s"):
        decision_at(parts_at(path, 10.0), 10.0)
    with pytest.raises(ValueError, match="is after the last decision"):
        decision_at(parts_at(path, 1e6), 1e6)


def test_the_counts_of_a_journal_do_not_grow_with_the_time_since_its_first_start():
    (step, *_) = steps(3, 1)
    late = replace(step, observation=replace(step.observation, minute=5_000_000))
    assert len(counts_by_minute([Tick(late)])) == 15
    assert arrivals(header_of(3), [Tick(late)]).shape == (3, 15)


# --- a full volume --------------------------------------------------------------------------------


def test_on_a_full_volume_the_oldest_archive_makes_room_for_the_next_tick(tmp_path, monkeypatch):
    path = tmp_path / "j"
    monkeypatch.setattr(rotation, "MAX_BYTES", 20_000)
    write(path, 5, 240)
    oldest, *others = rotation.archives(path)
    fsync = os.fsync

    def full(number):
        if oldest.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(number)

    monkeypatch.setattr("faro_ops.operate.memory.journal.os.fsync", full)
    with Journal(path) as journal:
        journal._max_bytes = MIB
        journal.begin(journal.header, 0)
        before = len(read(path)[1])
        (step, *_) = steps(5, 1)
        journal.tick(step, None)
        assert len(read(path)[1]) == before + 1
    assert rotation.archives(path) == others


def test_a_rotation_that_fails_costs_no_tick(tmp_path, monkeypatch):
    path = tmp_path / "j"
    monkeypatch.setattr(rotation, "MAX_BYTES", 20_000)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rotation, "write_archive", full)
    with Journal(path) as journal:
        journal.begin(header_of(5))
        for step in steps(5, 100):
            journal.tick(step, None)
    assert len(read(path)[1]) == 600


# --- faro trust -----------------------------------------------------------------------------------

MEASURED = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (4 << 30,) * 2)
from faro_ops import cli
status = cli.main(["trust", sys.argv[1], "--json"])
# Not `ru_maxrss`, which a child inherits from the process that started it.
status_lines = pathlib.Path("/proc/self/status").read_text().splitlines()
(peak_kib,) = [line.split()[1] for line in status_lines if line.startswith("VmHWM")]
peak = int(peak_kib) / 1024
print(f"{peak:.0f}", file=sys.stderr)
sys.exit(status)
"""


def test_trust_needs_less_than_500_mib_for_the_archives_of_200_jobs(tmp_path, monkeypatch):
    path = tmp_path / "j"
    written = write(path, 200, 20)
    (first,) = rotation.archives(path)
    content = first.read_bytes()
    # As many archives as two weeks have of ticks after thinning would take minutes; the peak is
    # that of one archive, so ten show whether it grows.
    for n in range(1, 10):
        first.with_name(f"j.{n:06d}.gz").write_bytes(content)
    lines = path.read_text().replace('"generation": 1', '"generation": 10')
    path.write_text("".join(_unchecked(line) + "\n" for line in lines.splitlines()))
    command = [sys.executable, "-c", MEASURED, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 200
    assert len(list(recorded(path))) >= 10 * (len(written) - 10)
    assert float(done.stderr.split()[-1]) < 500


def _unchecked(line):
    """A line of a journal without its checksum, as an earlier version wrote it."""
    record = json.loads(line)
    return json.dumps({name: value for name, value in record.items() if name != "crc"})


def test_trust_shows_the_same_before_and_after_thinning(tmp_path, capsys):
    path = tmp_path / "j"
    write(path, 3, 31)
    assert main(["trust", str(path), "--json"]) == 0
    before = capsys.readouterr().out
    age(path, 10)
    thinning.tidy(path)
    assert main(["trust", str(path), "--json"]) == 0
    assert capsys.readouterr().out == before
