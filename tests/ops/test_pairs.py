"""Prefill and decode replicas: `faro recommend` finds the pairs, and what serves none refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from faro_lib.simulate import LIVE
from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched, Disaggregated, mapping_of
from faro_ops import cli
from faro_ops.advise.recommend import pairs
from faro_ops.advise.recommend.pairs import best_prefill, sustained_rps, with_pairs, with_prefill
from faro_ops.advise.recommend.recommendation import recommend
from faro_ops.advise.sources.history import history_of
from faro_ops.cli.recommend import _text
from faro_ops.jobs_table import read_served
from faro_ops.operate.controller.controller import table_reader

# Both SLOs: 1 s to the first token, and 0.05 s per later token.
LONG_PROMPTS = Disaggregated(
    alpha_s=0.03,
    beta_s=0.0005,
    gamma_s=0.0001,
    max_sequences=16,
    output_tokens=10,
    prompt_tokens=2000,
    output_cv=0.5,
    prompt_cv=0.5,
    slo_on="both",
    per_token_weight=20.0,
    link_gbps=400,
    kv_bytes_per_token=327_680,
)
SHORT_PROMPTS = replace(LONG_PROMPTS, output_tokens=100, prompt_tokens=100)
LONG = Job("long", 1.0, replica=LONG_PROMPTS)
SHORT = Job("short", 1.0, replica=SHORT_PROMPTS)


def quiet(_: str) -> None:
    pass


@pytest.fixture(autouse=True)
def few_requests(coarse_tables, monkeypatch):
    monkeypatch.setattr(pairs, "REQUESTS", 600)


@pytest.mark.slow
@pytest.mark.parametrize("job", [LONG, SHORT], ids=lambda job: job.name)
def test_no_pair_sustains_more_than_the_best_one(job):
    best = best_prefill(job, (1, 2, 3, 4), LIVE)
    assert best[1] == 0
    for n in (2, 3, 4):
        rates = [sustained_rps(job, n, prefill, LIVE) for prefill in range(n)]
        assert rates[best[n]] == max(rates) > 0


def test_long_prompts_are_computed_apart_and_short_ones_are_not():
    assert best_prefill(LONG, (1, 2), LIVE) == {1: 0, 2: 1}
    assert best_prefill(SHORT, (1, 2), LIVE) == {1: 0, 2: 0}


def test_the_roles_of_all_numbers_follow_from_those_that_were_compared(monkeypatch):
    tried = []

    def sustained(job, replicas, prefill, model):
        tried.append((replicas, prefill))
        return min(2.0 * prefill, replicas - prefill) or 0.5  # the best share is a third

    monkeypatch.setattr(pairs, "sustained_rps", sustained)
    (job,) = with_pairs([LONG], 13, LIVE, quiet)
    assert isinstance(job.replica, Disaggregated)
    assert job.replica.prefill == (0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4)
    assert {replicas for replicas, _ in tried} == {1, 2, 3, 4, 5, 6, 7, 8, 10, 12}


def test_other_jobs_and_given_pairs_stay():
    jobs = Job("a"), Job("b", replica=Batched(4, 0.1, 0.2)), with_prefill(LONG, (0, 1))
    assert with_pairs(jobs, 4, LIVE, quiet) == jobs


@pytest.fixture
def jobs_table(tmp_path):
    path = tmp_path / "jobs.yaml"
    row = {"job": "chat", "slo_s": 1.0, "replica": mapping_of(LONG_PROMPTS)}
    path.write_text(yaml.safe_dump([row]))
    return path


@pytest.fixture
def counts_table(tmp_path):
    path = tmp_path / "counts.csv"
    rows = [f"{day},{minute},chat,90" for day in (0, 1) for minute in range(30)]
    path.write_text("\n".join(["day,minute,job,requests", *rows]) + "\n")
    return path


COUNTS = np.full((2, 40), 60)
HISTORY = history_of((Job("plain"), LONG), COUNTS)


def test_a_recommendation_has_the_roles_of_the_replicas():
    lines = []
    found = recommend(HISTORY, 4, forecaster="persistence", report=lines.append)
    plain, long = found.rows()
    assert plain["prefill_replicas"] is None
    assert 1 <= long["prefill_replicas"] < long["replicas"]
    assert any(
        line.startswith("prefill replicas of 1, 2, ... replicas of long: [0,") for line in lines
    )
    text = _text(found)
    prefill, decode = long["prefill_replicas"], long["replicas"] - long["prefill_replicas"]
    assert f"{long['replicas']} = {prefill} prefill + {decode} decode" in text


def test_the_command_recommends_from_files(jobs_table, counts_table, capsys):
    tables = ["--workload", str(counts_table), "--jobs", str(jobs_table), "--capacity", "4"]
    assert cli.main(["recommend", *tables, "--forecaster", "persistence", "--json"]) in (0, 3)
    (chat,) = json.loads(capsys.readouterr().out)["jobs"]
    assert 0 <= chat["prefill_replicas"] < chat["replicas"]


@pytest.mark.slow
def test_a_simulation_finds_the_capacity_that_the_slos_need():
    found = recommend(HISTORY, forecaster="persistence", report=quiet)
    assert found.slo_met
    assert found.simulated is not None
    assert found.simulated.required_cores >= 2
    assert (found.simulated.fixed["replicas"] > 0).all()


def test_a_day_is_simulated_with_the_best_pairs(jobs_table, counts_table, capsys):
    tables = ["--workload", str(counts_table), "--jobs", str(jobs_table), "--capacity", "3"]
    assert cli.main(["simulate", *tables, "--policy", "FairShare", "--json"]) == 0
    said = capsys.readouterr()
    assert "prefill replicas of 1, 2, ... replicas of chat: [0, 1" in said.err
    assert json.loads(said.out)["slo_violation_rate"] < 0.1


@pytest.mark.parametrize("backend", ["local", "rayserve", "deployments"])
@pytest.mark.parametrize("earn", [False, True])
def test_a_controller_reads_no_table_with_them(backend, earn, jobs_table):
    with pytest.raises(ValueError, match="replicas of kind disaggregated are simulated only"):
        table_reader(backend, earn)(jobs_table)


def test_other_tables_are_read_as_before(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text(json.dumps([{"job": "a"}]))
    assert read_served(path) == (Job("a"),)
