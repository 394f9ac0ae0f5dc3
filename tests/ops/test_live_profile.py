"""`faro profile` on real replicas of Ray Serve: it names the kind of four known services."""

from __future__ import annotations

import pytest
import yaml

from faro_lib.workload.readers import read_jobs
from faro_lib.workload.replicas import replica_of
from faro_ops.advise.calibrate.priors import OF_TOKENS
from faro_ops.cli import main

pytestmark = [pytest.mark.live, pytest.mark.study]

TOKENS = {
    "kind": "continuous",
    "alpha_s": 0.03,
    "beta_s": 0.003,
    "gamma_s": 2e-4,
    "max_sequences": 6,
    "output_tokens": 15.0,
    "output_cv": 0.5,
    "prompt_tokens": 100.0,
    "prompt_cv": 0.5,
}
KINDS = {
    "serial": {"kind": "serial"},
    "concurrent": {"kind": "concurrent", "at_once": 4},
    "batched": {
        "kind": "batched",
        "max_batch": 4,
        "wait_s": 0.03,
        "base_s": 0.12,
        "per_request_s": 0.02,
    },
    "continuous": TOKENS,
}
SERVICE_TIME_S = {"serial": 0.08, "concurrent": 0.2}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_of_a_running_service_is_named(kind, tmp_path, capsys):
    row = {
        "job": "service",
        "slo_s": 0.5,
        "replica": KINDS[kind],
        "serve": {"max_ongoing_requests": 12},
    }
    row |= {
        "service_time_s": SERVICE_TIME_S.get(kind, 0.1),
        "service_scv": 0.1 if kind in SERVICE_TIME_S else 0.0,
    }
    if kind == "continuous":
        own = {
            "import_path": "faro_ops.operate.rayserve.models:EmulatedTokens",
            "args": {"replica": dict(TOKENS), "stream": True},
        }
        row |= {"slo_s": 1.0, "serve": row["serve"] | own | {"concurrency": 12}}
    table = tmp_path / "jobs.yaml"
    table.write_text(yaml.safe_dump([row]))
    capacity_rps = replica_of(KINDS[kind]).capacity_rps(row["service_time_s"])
    assert main(["profile", "--jobs", str(table), "--requests", "100", "--seconds", "45"]) == 0
    printed = capsys.readouterr().out
    assert f"replica {kind}" in printed
    assert "calibrated" in printed, printed
    assert (tmp_path / "jobs-service.png").exists()
    (job,) = read_jobs(table)
    assert job.replica.kind == kind
    assert job.replica.capacity_rps(job.service_time_s) == pytest.approx(capacity_rps, rel=0.15), (
        printed
    )
    true = {name: value for name, value in KINDS[kind].items() if name not in ("kind", *OF_TOKENS)}
    assert {name: getattr(job.replica, name) for name in true} == pytest.approx(true, rel=0.15), (
        printed
    )
    if kind in SERVICE_TIME_S:
        assert job.service_time_s == pytest.approx(SERVICE_TIME_S[kind], rel=0.15), printed
