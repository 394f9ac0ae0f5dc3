"""Without a network, an installed Faro runs its default workload."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from checkouts import ROOT, make_checkout

# In a new network namespace: bring loopback up, check that there is no other network, then run the command.
CUT = """
import fcntl, os, socket, struct, sys
lo = socket.socket()
fcntl.ioctl(lo, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
try:
    socket.create_connection(("192.0.2.1", 80), 3)
except OSError as error:
    print("no network:", error, flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def cut_off():
    """Runs a command without a network."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not there, so the network cannot be cut")
    unshare = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    tried = subprocess.run([*unshare, sys.executable, "-c", CUT, "true"], capture_output=True, text=True)
    if tried.returncode or "no network:" not in tried.stdout:
        pytest.skip(f"the network cannot be cut here: {tried.stderr.strip()}")

    def run(command, **options) -> subprocess.CompletedProcess:
        command = [*unshare, sys.executable, "-c", CUT, *command]
        return subprocess.run(command, capture_output=True, text=True, timeout=1800, **options)

    return run


def test_the_simulator_needs_no_network(cut_off):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    asked = ["simulate", "--policy", "FairShare", "--minutes", "5", "--json"]
    done = cut_off([sys.executable, "-m", "faro_lib.cli", *asked], env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["policy"] == "FairShare"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return make_checkout(tmp_path_factory.mktemp("offline"), real_notebooks=True)


def ran(cut_off, checkout, *arguments) -> None:
    command = checkout.command("--configfile", "config/smoke.yaml", *arguments)
    done = cut_off(command, cwd=checkout.folder, env=checkout.environment())
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.slow
def test_the_pipeline_runs_to_its_report_without_a_network(cut_off, checkout):
    ran(cut_off, checkout)
    assert (checkout.results / "synthetic" / "report.html").stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.live
def test_ray_serves_on_loopback_alone(cut_off, checkout):
    table = "results/synthetic/live/local/summary.csv"
    only = "live={capacity: 4, minutes: 2, policies: [FairShare]}"
    ran(cut_off, checkout, "--config", "backend=local", only, "--", table)
    assert (checkout.folder / table).exists()
