"""A local Ray ends with all processes that it started."""

import subprocess
import sys
import time

import psutil
import pytest

from faro_lib.rayserve.local import LocalRay

# Its child starts a grandchild and ends: an orphan in the session, as an HAProxy is whose proxy has died.
ORPHANING = """
import subprocess, sys, time
nap = "import time; time.sleep(60)"
start = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {nap!r}], stdout=2).pid, flush=True)"
subprocess.run([sys.executable, "-c", start])
time.sleep(60)
"""


@pytest.fixture
def other():
    """A process of somebody else."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_orphans_of_ray_end_too_and_other_processes_do_not(tmp_path, other):
    head = subprocess.Popen(
        [sys.executable, "-c", ORPHANING], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert head.stdout is not None
    orphan = psutil.Process(int(head.stdout.readline()))
    until = time.monotonic() + 10
    while orphan.ppid() in {head.pid, *(child.pid for child in psutil.Process(head.pid).children())}:
        assert time.monotonic() < until
        time.sleep(0.01)
    LocalRay(head.pid, "http://127.0.0.1:1", "http://127.0.0.1:1", "", tmp_path / "folder", head).stop()
    assert not orphan.is_running()
    assert head.poll() is not None
    assert other.poll() is None
