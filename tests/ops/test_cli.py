"""The command line, run as its user does."""

import io
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from datetime import datetime

import pytest

from faro_lib import __version__
from faro_ops import cli, log

pytestmark = pytest.mark.usefixtures("coarse_tables")

HOUR = shlex.split(
    "simulate --policy FairShare --policy AIAD --minutes 10 --trials 2 --capacity 16"
)


def test_version_prints_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"faro {__version__}"


def test_without_a_command_it_lists_the_commands(capsys):
    assert cli.main([]) == 0
    assert "simulate" in capsys.readouterr().out


def test_the_shell_completes_commands_and_options():
    def completed(*words):
        environment = os.environ | {
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        code = "import sys; from faro_ops.cli import main; sys.argv[0] = 'faro'; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment | {"_FARO_COMPLETE": "complete_bash"},
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    assert completed("faro", "rec") == ["recommend"]
    assert completed("faro", "recommend", "--work") == ["--workload"]


def test_the_table_has_a_row_per_policy_in_the_given_order(capsys):
    assert cli.main(HOUR) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["policy", "FairShare", "AIAD"]
    assert all("±" in row for row in rows[1:])


def test_standard_output_has_one_json_object_per_policy_and_trial_and_nothing_else(capsys):
    assert cli.main([*HOUR, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["policy"], row["trial"]) for row in rows} == {
        (p, t) for p in ("FairShare", "AIAD") for t in (0, 1)
    }
    assert all(0 <= row["lost_utility"] <= 10 for row in rows)


def test_the_same_call_gives_the_same_numbers(capsys):
    def run():
        assert cli.main([*HOUR, "--json"]) == 0
        times = ("decision_ms_p50", "decision_ms_p99", "wall_s")
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [{name: value for name, value in row.items() if name not in times} for row in rows]

    assert run() == run()


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr("faro_lib.experiments.trials.run_trials", broken)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(HOUR)


def test_a_past_decision_is_explained_from_the_journal(tmp_path, capsys):
    from live_things import Wanting

    from faro_lib.simulate import SimulatedCluster, draw
    from faro_lib.workload.synthetic import synthetic
    from faro_ops.operate.loop.loop import run

    day = synthetic(seed=1, jobs=2, days=0).workload().between(0, 3)
    run(
        SimulatedCluster(day, draw(day, 24), 6, [1, 1]),
        Wanting([2, 3]),
        day.jobs,
        journal=tmp_path / "j",
        until_s=90.0,
    )
    assert cli.main(["explain", str(tmp_path / "j"), "--at", "15", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["job"], row["before"], row["after"]) for row in rows] == [
        ("job0", 1, 2),
        ("job1", 1, 3),
    ]
    assert cli.main(["explain", str(tmp_path / "j")]) == 0
    assert "Wanting at 80 s" in capsys.readouterr().out


def test_a_clock_time_names_the_last_decision_before_it(tmp_path, capsys):
    from datetime import datetime

    from journal_things import edited
    from live_things import JOBS, Still, Wanting

    from faro_ops.operate.loop.loop import run

    run(Still(), Wanting([1, 1]), JOBS, journal=tmp_path / "j", until_s=90.0)
    ten = int(datetime(2026, 11, 27, 10, 0).timestamp())
    path = str(edited(tmp_path / "j", '"origin_s": null', f'"origin_s": {ten}'))
    assert cli.main(["explain", path, "--at", "10:00:35"]) == 0
    assert "Wanting at 30 s (2026-11-27 10:00:30)" in capsys.readouterr().out
    assert cli.main(["explain", path, "--at", "10:02"]) == 2
    assert "before the first decision" in capsys.readouterr().err, "10:02 of the day before"


def test_without_apply_the_controller_prints_plans_and_changes_nothing(
    tmp_path, capsys, monkeypatch
):
    from live_things import FakeRay

    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
    ray = FakeRay({"a": 1, "b": 1}, token="right")
    with ray.served() as address:
        where = ["--address", address, "--serve-address", address, "--journal", str(tmp_path / "j")]
        options = ["--policy", "FairShare", "--tick", "1", "--seconds", "3"]
        assert cli.main(["run", "--jobs", str(tmp_path / "jobs.yaml"), *where, *options]) == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert told
        assert all(not one["applied"] and one["plan"]["a"]["replicas"] == 4 for one in told)
        assert ray.scaled == []
        shutil.rmtree(tmp_path / "j")
        assert (
            cli.main(["run", "--jobs", str(tmp_path / "jobs.yaml"), *where, *options, "--apply"])
            == 0
        )
        assert sorted(ray.scaled) == [("a", 4), ("b", 4)]


def test_the_simulator_needs_no_package_beyond_the_base_installation(tmp_path):
    """psutil, which Ray Serve and the pipeline need, is not part of it."""
    (tmp_path / "my.csv").write_text(
        "minute,job,requests\n" + "".join(f"{minute},a,60\n" for minute in range(10))
    )
    code = (
        "import sys; sys.modules['psutil'] = None; "
        "from faro_ops import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["simulate", "--workload", "my.csv", "--capacity", "3", "--policy", "AIAD"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["typer", "requests"])
def test_without_the_packages_of_the_commands_one_line_says_what_to_install(package):
    code = f"import sys; sys.modules[{package!r}] = None; from faro_ops.cli import main"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; sys.exit(main([]))"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == f"faro: {package} is not installed: pip install 'faro_lib[ops]'\n"


ONE_DAY = "minute,job,requests\n" + "".join(
    f"{minute},{job},5\n" for minute in range(10) for job in "ab"
)


class TestASingleDay:
    @pytest.fixture
    def counts(self, tmp_path):
        (tmp_path / "day.csv").write_text(ONE_DAY)
        return str(tmp_path / "day.csv")

    def test_is_enough_for_a_policy_that_does_not_learn(self, counts, capsys):
        assert (
            cli.main(["simulate", "--workload", counts, "--capacity", "6", "--policy", "AIAD"]) == 0
        )

    def test_a_second_short_day_is_not_needed_for_learning(self, tmp_path, capsys):
        rows = [f"{day},{minute},{job},5" for day in (1, 2) for minute in range(10) for job in "ab"]
        (tmp_path / "two.csv").write_text("\n".join(["day,minute,job,requests", *rows]) + "\n")
        told = f"simulate --workload {tmp_path}/two.csv --capacity 6 --policy FairShare".split()
        assert cli.main(told) == 0


def test_a_log_on_a_full_disk_ends_nothing(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    log.say("no answer", "observe")


def test_the_log_of_a_run_can_be_json(capsys, monkeypatch):
    monkeypatch.setattr(log, "_log_format", "text")
    log.use_log_format("json")
    log.say("no answer", "observe")
    logging.getLogger("faro.test").addHandler(log.SayHandler())
    logging.getLogger("faro.test").warning("the plan is not published")
    failure, warning = map(json.loads, capsys.readouterr().err.splitlines())
    assert (failure["level"], failure["reason"], failure["message"]) == (
        "error",
        "observe",
        "no answer",
    )
    assert warning["message"] == "the plan is not published"
    assert datetime.fromisoformat(failure["time"]).tzinfo
