"""Without a network, Faro simulates and serves. test_golden.py runs the pipeline without one."""

import json
import os
import subprocess
import sys

import pytest
from checkouts import ROOT, make_checkout
from network import cut_off


def test_the_simulator_needs_no_network():
    asked = ["simulate", "--policy", "FairShare", "--minutes", "5", "--json"]
    command = cut_off(sys.executable, "-m", "faro_ops.cli", *asked)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["policy"] == "FairShare"


@pytest.mark.slow
@pytest.mark.live
def test_ray_serves_on_loopback_alone(tmp_path):
    checkout = make_checkout(tmp_path, real_notebooks=True)
    table = "results/synthetic/live/local/summary.csv"
    only = "live={capacity: 4, minutes: 2, policies: [FairShare]}"
    command = checkout.command(
        "--configfile", "config/smoke.yaml", "--config", "backend=local", only, "--", table
    )
    done = subprocess.run(
        cut_off(*command),
        cwd=checkout.folder,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (checkout.folder / table).exists()
