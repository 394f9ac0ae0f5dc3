"""Lengths of prompts and outputs from a request log."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from faro_lib.workload import Job
from faro_lib.workload.log_lengths import MIN_REQUESTS, lengths_of, with_lengths
from faro_lib.workload.log_traces import read_workload
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.replicas import Continuous
from faro_lib.workload.request_log import read_request_log
from faro_ops.advise.calibrate import tokens_of
from faro_ops.advise.sources.history import history_from_csv
from faro_ops.operate.controller.model import Source
from studies.traces.files import write_jobs

REPLICA = Continuous(0.02, 0.001, 1e-4, 16, 50, 200, prompt_cv=1.0, slo_on="first_token")
CHAT = Job("chat", slo_s=1.0, model="own", replica=REPLICA)
PLAIN = Job("plain")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A day of chat with prompts of 100 or 900 tokens, and a few requests of others."""
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"time": np.sort(rng.uniform(0, 86_400, 3000)).round(3)})
    rows["job"] = np.where(np.arange(3000) % 20 == 19, "plain", "chat")
    rows.loc[::300, "job"] = "rare"
    rows["prompt_tokens"] = np.where(rng.random(3000) < 0.75, 100, 900)
    rows["output_tokens"] = rng.integers(0, 80, 3000)
    rows["time"] = pd.to_datetime(rows["time"], unit="s").dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
    path = tmp_path_factory.mktemp("log") / "log.csv.gz"
    rows.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def log(path):
    return read_request_log(path, lengths=True)


def test_the_tokens_of_each_job_are_those_of_its_rows(path, log):
    rows = pd.read_csv(path)
    assert set(log.tokens) == {"chat", "plain", "rare"}
    for name, tokens in log.tokens.items():
        own = rows[rows["job"] == name][["prompt_tokens", "output_tokens"]]
        np.testing.assert_array_equal(tokens, own.to_numpy().T)


def test_a_log_keeps_no_tokens_unless_asked_or_without_their_columns(path, tmp_path):
    assert not read_request_log(path).tokens
    rows = pd.read_csv(path).drop(columns="output_tokens")
    rows.to_csv(tmp_path / "log.csv", index=False)
    assert not read_request_log(tmp_path / "log.csv", lengths=True).tokens


def test_a_job_that_generates_tokens_has_the_lengths_of_the_log(log):
    said = []
    chat, plain = with_lengths((CHAT, PLAIN), lengths_of(log), said.append)
    drawn = chat.replica.lengths(np.random.default_rng(1), 20_000)
    tokens = np.maximum(log.tokens["chat"], 1)
    np.testing.assert_allclose(drawn.mean(axis=1), tokens.mean(axis=1), rtol=0.02)
    for share in (0.5, 0.9, 0.99):
        np.testing.assert_allclose(
            np.quantile(drawn, share, axis=1), np.quantile(tokens, share, axis=1), rtol=0.05
        )
    assert drawn.max(axis=1) == pytest.approx(tokens.max(axis=1), rel=0.05)
    assert replace(chat, replica=REPLICA) == CHAT
    assert plain == PLAIN
    assert len(said) == 1
    assert "chat (" in said[0]


def test_quantiles_in_the_table_win(log):
    stated = replace(REPLICA, prompt_cv=0.0, prompt_quantiles=((0, 10), (1, 390)))
    job = replace(CHAT, replica=stated)
    assert with_lengths((job,), lengths_of(log)) == (job,)


def test_few_requests_say_nothing(log):
    assert log.tokens["rare"].shape[1] < MIN_REQUESTS
    job = replace(CHAT, name="rare")
    assert with_lengths((job,), lengths_of(log)) == (job,)


def test_a_cache_that_does_not_hold_a_request_is_one_line(log):
    small = replace(CHAT, replica=replace(REPLICA, cache_tokens=260))
    with pytest.raises(ValueError, match=r"job 'chat', with the lengths of the log: .*cache"):
        with_lengths((small,), lengths_of(log))


@pytest.mark.parametrize("bursts", [True, False])
def test_every_command_that_reads_a_log_knows_its_lengths(path, tmp_path, bursts):
    table = tmp_path / "jobs.yaml"
    write_jobs((CHAT, PLAIN, replace(PLAIN, name="rare")), table)
    said = []
    recommended = history_from_csv(str(path), str(table), report=said.append, bursts=bursts).jobs
    simulated = read_workload(str(path), str(table), bursts=bursts).jobs
    controlled = Source(str(path)).with_bursts(read_jobs)(table)
    for jobs in (recommended, simulated, controlled):
        assert jobs[0].replica.prompt_quantiles
        assert jobs[0].replica.prompt_tokens == pytest.approx(300, rel=0.05)
    assert "prompts and outputs are as long as in the log: chat (" in "; ".join(said)


def test_calibration_knows_the_variation_of_quantiles():
    twice = replace(REPLICA, prompt_cv=0.0, prompt_quantiles=((0, 1), (1, 399)))
    tokens = tokens_of(twice)
    assert tokens["prompt_cv"] == pytest.approx(1 / np.sqrt(3), rel=0.05)  # uniform from 0
    assert (tokens["prompt_tokens"], tokens["output_cv"]) == (200, 0.0)
    assert tokens_of(REPLICA)["prompt_cv"] == 1.0
    assert tokens_of(PLAIN.replica) is None
