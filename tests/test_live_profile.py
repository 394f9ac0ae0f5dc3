"""`faro profile` on real replicas of Ray Serve: it names the kind of three services whose kind is known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from faro_lib.cli import main
from faro_lib.workload.readers import read_jobs

pytestmark = [pytest.mark.live, pytest.mark.slow]

BATCHES = {"max_batch": 4, "wait_s": 0.03, "base_s": 0.12, "per_request_s": 0.02}
SERVICES = {
    "serial": {"service_time_s": 0.08, "service_scv": 0.1},
    "concurrent": {"service_time_s": 0.2, "service_scv": 0.1, "serve": {"concurrency": 4}},
    "batched": {"serve": {"import_path": "live_models:Batching", "args": BATCHES, "concurrency": 8}},
}
CAPACITY_RPS = {"serial": 1 / 0.08, "concurrent": 4 / 0.2, "batched": 4 / 0.2}
LIMIT = {"max_ongoing_requests": 16}


@pytest.mark.parametrize("kind", SERVICES)
def test_the_kind_of_a_running_service_is_named(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    row = {"job": "service", "slo_s": 0.5} | SERVICES[kind]
    row["serve"] = LIMIT | row.get("serve", {})
    table = tmp_path / "jobs.yaml"
    table.write_text(yaml.safe_dump([row]))
    assert main(["profile", "--jobs", str(table), "--requests", "40", "--seconds", "12"]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "jobs-service.png").exists()
    (job,) = read_jobs(table)
    assert job.replica.kind == kind, printed
    assert job.replica.capacity_rps(job.service_time_s) == pytest.approx(CAPACITY_RPS[kind], rel=0.15)
