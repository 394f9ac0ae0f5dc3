"""A journal stays small for weeks: keyframes, thinned days, and readers that stream."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from checkouts import ROOT
from journal_things import header_of, steps

from faro_ops.cli import main
from faro_ops.journal import database, pruning
from faro_ops.journal.database import day_files
from faro_ops.journal.reading import arrivals, counts_by_minute, parts, read, recorded
from faro_ops.journal.ticks import Tick, tick_of, tick_record
from faro_ops.journal.writing import Journal
from faro_ops.operate.loop.resume import replay

MIB = 1 << 20


def write(path, jobs, minutes, **options):
    """A journal of `jobs` jobs with one file, and its steps."""
    written = list(steps(jobs, minutes, **options))
    with Journal(path) as journal:
        journal.begin(header_of(jobs))
        for step in written:
            journal.tick(step, None)
    return written


def follow(path):
    """Have another file follow those of a journal, which are then those of earlier days."""
    file = path / f"{len(day_files(path)) + 1:06d}-{database.day_of(time.time())}.db"
    database.write_file(file, pruning.header_rows(header_of(5), 1, True))


def sizes_of(file):
    """Bytes of a file with all its ticks, thinned to one a minute, and to one in five."""
    sizes = [file.stat().st_size]
    for _, every_s in pruning.LEVELS:
        pruning.thin(file, every_s)
        sizes.append(file.stat().st_size)
    return sizes


def test_two_weeks_of_200_jobs_with_a_tick_every_ten_seconds_fit_into_300_mib(tmp_path):
    minutes = 60
    write(tmp_path / "j", 200, minutes)
    (file,) = day_files(tmp_path / "j")
    database.settle(file)
    whole, by_minute, by_five = sizes_of(file)
    per_day = 1440 / minutes
    # A file becomes a day old only when its last tick does.
    files = per_day * (whole + 2 * by_minute + 11 * by_five) + database.FILE_BYTES
    assert files < pruning.MAX_BYTES, f"{files / MIB:.0f} MiB: the oldest days would be deleted"
    # A file that is thinned out is there twice meanwhile.
    assert pruning.MAX_BYTES + database.FILE_BYTES < 300 * MIB


def test_a_tick_is_read_back_to_the_last_bit(tmp_path):
    written = write(tmp_path / "j", 20, 3)
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
    record = tick_record(Tick(second), first)
    assert not {"arrivals_per_min", "tail_latency_s"} & set(record["observation"])
    assert "authority" not in record["plan"]
    assert len(json.dumps(record)) < len(json.dumps(tick_record(Tick(second), None))) / 4
    again = tick_of(json.loads(json.dumps(record)), 20, first)
    np.testing.assert_array_equal(again.step.observation.ongoing, second.observation.ongoing)


def age(path, days):
    """Make all files but the newest so many days old."""
    for file in day_files(path)[:-1]:
        then = time.time() - 86_400 * days
        os.utime(file, (then, then))


@pytest.mark.parametrize(("days", "every_min"), [(0.5, None), (2, 1), (10, 5)])
def test_the_older_a_file_is_the_fewer_of_its_ticks_are_kept(tmp_path, days, every_min):
    path = tmp_path / "j"
    written = write(path, 5, 30)
    follow(path)
    age(path, days)
    before = day_files(path)[0].stat().st_mtime
    pruning.thin_out(path, time.time())
    assert day_files(path)[0].stat().st_mtime == before
    ((_, ticks),) = parts(path)
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
    write(path, 5, 30)
    follow(path)
    whole = arrivals(*parts(path)[0])
    age(path, 10)
    pruning.thin_out(path, time.time())
    once = day_files(path)[0].read_bytes()
    pruning.thin_out(path, time.time())
    assert day_files(path)[0].read_bytes() == once
    np.testing.assert_array_equal(arrivals(*parts(path)[0]), whole[:, : 14 + 30])


def test_the_tick_at_which_a_service_gains_authority_is_kept(tmp_path):
    path = tmp_path / "j"
    written = list(steps(2, 31))
    with Journal(path) as journal:
        journal.begin(header_of(2))
        for n, step in enumerate(written):
            earned = step.plan.authority.copy()
            earned[0, 0] = n >= 40  # within a minute
            journal.tick(replace(step, plan=replace(step.plan, authority=earned)), None)
    follow(path)
    age(path, 10)
    pruning.thin_out(path, time.time())
    times_s = [tick.step.observation.now_s for _, tick in recorded(path)]
    assert len(times_s) < len(written) / 10
    assert written[40].observation.now_s in times_s


def test_a_damaged_file_is_not_thinned_out(tmp_path):
    path = tmp_path / "j"
    write(path, 5, 30)
    follow(path)
    (file, _) = day_files(path)
    content = bytearray(file.read_bytes())
    content[content.rindex(b"Faro\x01") + 50] ^= 1
    file.write_bytes(content)
    age(path, 10)
    pruning.thin_out(path, time.time())
    assert file.read_bytes() == content


def test_a_replay_leaves_out_what_thinning_has_left_over():
    from live_things import Wanting

    thinned = [Tick(step, every_s=60.0) for step in steps(2, 3)]
    whole = [Tick(step) for step in steps(2, 60)]
    pairs = list(replay(Wanting([1, 1]), header_of(2), [*thinned, *whole]))
    assert len(pairs) == len(whole) - 200


def test_the_oldest_files_are_deleted_first_if_all_are_too_large(tmp_path, monkeypatch):
    path = tmp_path / "j"
    monkeypatch.setattr(database, "FILE_BYTES", 1)
    write(path, 5, 2)
    files = day_files(path)
    monkeypatch.setattr(pruning, "MAX_BYTES", 3 * files[-1].stat().st_size)
    pruning.delete_oldest(path)
    assert day_files(path) == files[-3:]


def test_the_counts_of_a_journal_do_not_grow_with_the_time_since_its_first_start():
    (step, *_) = steps(3, 1)
    late = replace(step, observation=replace(step.observation, minute=5_000_000))
    assert len(counts_by_minute([Tick(late)])) == 15
    assert arrivals(header_of(3), [Tick(late)]).shape == (3, 15)


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


def test_trust_needs_less_than_500_mib_for_two_weeks_of_200_jobs(tmp_path):
    path = tmp_path / "j"
    written = write(path, 200, 20)
    # As many files as two weeks have would take minutes; the peak is that of one file, so ten show
    # whether it grows.
    (first,) = day_files(path)
    for n in range(2, 11):
        shutil.copy(first, first.with_name(first.name.replace("000001", f"{n:06d}")))
    command = [sys.executable, "-c", MEASURED, str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 200
    assert sum(1 for _ in recorded(path)) == 10 * len(written)
    assert float(done.stderr.split()[-1]) < 500


def test_trust_shows_the_same_before_and_after_thinning(tmp_path, monkeypatch, capsys):
    path = tmp_path / "j"
    *earlier, last = steps(3, 31)
    with Journal(path) as journal:
        journal.begin(header_of(3))
        for step in earlier:
            journal.tick(step, None)
        monkeypatch.setattr(database, "FILE_BYTES", 1)
        journal.tick(last, None)
    file, _ = day_files(path)
    assert main(["trust", str(path), "--json"]) == 0
    before = capsys.readouterr().out
    pruning.thin(file, 300.0)
    assert main(["trust", str(path), "--json"]) == 0
    assert capsys.readouterr().out == before
