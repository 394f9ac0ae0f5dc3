"""Every command of README and docs/start.md runs as printed, in a separate checkout.

Exceptions: `make test` and `make test-all`, which run these tests, `make figures`, which
test_golden.py runs, and `pip install`, which needs an index.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
from checkouts import ROOT, reader_checkout, surroundings, typed
from faro_pipeline.check import needed_gb
from faro_pipeline.settings import Config
from waiting import until

from faro_ops.journal.reading import arrivals, read

README, START = ((ROOT / name).read_text() for name in ("README.md", "docs/start.md"))
COMMANDS = [
    line.split("   #")[0].split("  #")[0].strip()
    for line in re.findall(r"^    (\S.*)$", README + START, re.M)
]
INSTALL = "pip install '.[ops]'"
PLAN = "faro recommend --workload data/example.csv --jobs data/example-jobs.csv --capacity 12"
LAB = "make lab"
FIGURES = "make figures"
TEST = "make test"
PAPER = "make figures CONFIG=config/paper.yaml"
MINE = 'make figures WORKLOAD=my.csv SET="jobs=my_jobs.csv capacities=[24,16]"'
DATA = "make data"
FARO = ".venv/bin/faro"
SIMULATE = f"{FARO} simulate --policy AIAD --policy Faro-Sum --capacity 32 --trials 2"
RECOMMEND = f"{FARO} recommend --workload data/example.csv --jobs data/example-jobs.csv --curve"
RUN = (
    f"{FARO} run --backend local --jobs data/example-jobs.csv --capacity 8 --apply "
    "--journal run.journal"
)
EXPLAIN = f"{FARO} explain run.journal"
NEXT = f"{FARO} recommend --journal run.journal --capacity 8"
HELP = f"{FARO} --help"
TESTED = [INSTALL, PLAN, FIGURES, TEST, LAB, PAPER, MINE, DATA]
TESTED += [SIMULATE, RECOMMEND, RUN, EXPLAIN, NEXT, HELP]
RAW = ("input.json", "top9_twitter_1_1600_avgproc_min_int5m_reduced_6hr_augmented.pkl")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if Path(sys.prefix) == Path(sys.base_prefix):
        pytest.skip("the tests do not run in a virtual environment that a checkout could be given")
    folder = reader_checkout(tmp_path_factory.mktemp("reader"))
    shutil.copy(ROOT / "data/example.csv", folder / "my.csv")
    shutil.copy(ROOT / "data/example-jobs.csv", folder / "my_jobs.csv")
    return folder


def started(command, folder, log):
    """The process of a command that runs in the folder, in a session of its own, until stopped."""
    with log.open("w") as output:
        return subprocess.Popen(
            shlex.split(command),
            cwd=folder,
            env=surroundings(folder),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def test_these_are_the_commands_of_the_readme():
    shown = {f"{FIGURES} CONFIG=config/smoke.yaml", *re.findall(r"`(make [^`]+)`", README + START)}
    assert COMMANDS == TESTED
    assert shown <= {FIGURES, f"{FIGURES} CONFIG=config/smoke.yaml", "make docs"}


def test_the_readme_asks_for_the_memory_that_the_default_run_needs():
    needed = needed_gb(
        Config(), Config().synthetic.jobs, Config().synthetic.days, Config().synthetic.minutes
    )
    assert max(needed.values()) <= int(re.search(r"(\d+) GB of free\smemory", README)[1])


def test_the_picture_of_the_loop_loads_nothing_and_is_drawn_for_light_and_dark():
    picture = (ROOT / "docs/images/loop.svg").read_text()
    assert "prefers-color-scheme: dark" in picture
    assert not re.search(r"href|<script|<image|url\((?!#)", picture)


@pytest.mark.slow
def test_the_simulator_of_the_readme_prints_a_row_per_policy(folder):
    rows = typed(SIMULATE, folder).splitlines()
    assert [row.split()[0] for row in rows] == ["policy", "AIAD", "Faro-Sum"]


@pytest.mark.slow
def test_the_plan_in_the_readme_is_what_its_command_prints(folder):
    (shown,) = re.findall(r"```text\n(.*?)```", README, re.DOTALL)
    assert typed(f".venv/bin/{PLAN}", folder) == shown


@pytest.mark.slow
def test_the_recommendation_of_the_readme_has_a_row_per_job_and_a_curve(folder):
    told = typed(RECOMMEND, folder)
    jobs = [line.split()[0] for line in told.splitlines()[3:7]]
    assert jobs == ["caption", "detect", "search", "translate"]
    assert "<- meets every SLO" in told


@pytest.mark.live
def test_the_controller_of_the_readme_scales_until_sigterm_and_its_journal_explains_it(folder):
    log = folder / "run.log"
    running = started(RUN, folder, log)
    try:
        until = time.monotonic() + 300  # until it has scaled and has counted one complete minute
        while (
            '"applied": true' not in log.read_text()
            or not arrivals(*read(folder / "run.journal")).size
        ):
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.5)
        running.terminate()
        assert running.wait(90) == 0, log.read_text()
    finally:
        running.kill()
    for command in (EXPLAIN, NEXT):
        told = typed(command, folder)
        assert all(name in told for name in ("caption", "detect", "search", "translate")), told


def test_the_help_of_the_readme_names_the_commands(folder):
    told = typed(HELP, folder).split()
    assert {"simulate", "recommend", "run", "explain"} <= set(told)


def test_published_traces_that_exist_are_not_downloaded(folder):
    if not all((ROOT / "data/raw" / name).exists() for name in RAW):
        pytest.skip("the published traces are not there, and tests fetch nothing")
    (folder / "data" / "raw").mkdir(exist_ok=True)
    for name in RAW:
        shutil.copy(ROOT / "data/raw" / name, folder / "data/raw")
    assert typed(DATA, folder).splitlines()[-2:] == [f"data/raw/{name}" for name in RAW]
    assert "simulate" in typed(f"{PAPER} ARGS=--dry-run", folder)


def test_the_lab_of_the_readme_opens_the_notebooks(folder):
    (folder / "jupyter").mkdir()
    told = {"allow_root": True, "open_browser": False, "port": 0, "ip": "127.0.0.1"}
    (folder / "jupyter" / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": told}))
    log = folder / "lab.log"
    running = started(LAB, folder, log)
    try:

        def names() -> set[str]:
            """The notebooks that the lab lists; it says its address before it answers there."""
            assert running.poll() is None, log.read_text()
            address = re.compile(r"(http://127\.0\.0\.1:\d+)/lab\S*\?token=(\w+)")
            found = address.search(log.read_text())
            if not found:
                return set()
            listing = f"{found[1]}/api/contents/notebooks?token={found[2]}"
            with urllib.request.urlopen(listing, timeout=60) as answer:
                return {entry["name"] for entry in json.load(answer)["content"]}

        assert "00_tour.ipynb" in until(names, what=log.read_text, passing=(URLError,))
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def test_a_missing_settings_file_is_reported_in_one_line_with_the_existing_ones(folder):
    done = subprocess.run(
        shlex.split(f"{FIGURES} CONFIG=config/smok.yaml"),
        cwd=folder,
        env=surroundings(folder),
        capture_output=True,
        text=True,
    )
    said = done.stderr.splitlines()
    assert done.returncode == 2
    assert said[0].startswith("make: CONFIG: config/smok.yaml: no such file; those at hand: ")
    assert "config/smoke.yaml" in said[0]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_workload_of_the_user_has_its_own_report(folder):
    (folder / "quick.yaml").write_text(
        "forecast: {posterior: null, draws: 10, tune: 50, chains: 1}\n"
        "scale: {clusters: []}\nsensitivity: {forecast_error: [], cold_start_s: []}\n"
    )
    typed(f'{MINE} CONFIG="config/smoke.yaml quick.yaml"', folder)
    report = (folder / "results/my/report.html").read_text()
    assert "24 cores" in report
    assert "16 cores" in report
