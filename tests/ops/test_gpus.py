"""Replicas of measured GPUs: fits to a table of measurements, `faro gpus`, and warnings."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from faro_lib.workload.readers import read_jobs
from faro_lib.workload.replicas import measured_gpus, replica_of
from faro_ops.advise.calibrate.gpus import fit_gpus
from faro_ops.cli.app import exit_status
from faro_ops.jobs_table import assumptions

LENGTHS = {"prompt_tokens": 400, "output_tokens": 100}
ON_H100 = "gpu: h100-80gb, model: llama2-70b, tensor_parallel: 4, output_tokens: 100"


def step_ms(n):
    """Flat to 16 sequences, then rising."""
    return 20.0 + 0.5 * np.maximum(n - 16, 0)


def prompt_ms(tokens):
    """At least 40 ms, and steeper above 2,048 tokens."""
    return np.maximum(40.0, 0.1 * tokens) + 0.05 * np.maximum(tokens - 2048, 0)


def measured(several=1.0, runs=3, noise=0.0, **columns):
    """Measurements by the two laws above.

    A batch of prompts takes `several` times as long as one prompt with as many tokens.
    """
    sizes = [(2**n, 1) for n in range(6, 14)] + [(512, 2**n) for n in range(1, 7)]
    rng = np.random.default_rng(1)
    rows = []
    for prompt, batch in sizes * runs:
        factor = several if batch > 1 else 1.0
        times = [factor * prompt_ms(prompt * batch), step_ms(batch)] * np.exp(
            noise * rng.standard_normal(2)
        )
        rows.append(["m", "g", 2, prompt, batch, *times])
    names = ["model", "hardware", "tensor_parallel", "prompt_size", "batch_size"]
    return pd.DataFrame(rows, columns=[*names, "prompt_time", "token_time"]).assign(**columns)


def fitted(runs):
    (fit,) = fit_gpus(runs)
    return fit, replica_of(fit.replica | LENGTHS)


class TestFit:
    def test_a_law_with_knees_is_found_at_and_between_the_measured_points(self):
        _, replica = fitted(measured())
        for n in (1, 4, 16, 32, 64):
            assert 1000 * replica.decode_s(n) == pytest.approx(step_ms(n), rel=0.01)
        for tokens in (64, 128, 512, 1024, 3000, 8192):
            found_ms = 1000 * (replica.decode_s(1) + replica.prefill_s(tokens))
            assert found_ms == pytest.approx(prompt_ms(tokens), rel=0.03)

    def test_the_errors_are_those_of_points_that_the_fit_has_not_seen(self):
        runs = measured()
        at_512 = (runs["prompt_size"] == 512) & (runs["batch_size"] == 1)
        runs.loc[at_512, "prompt_time"] *= 1.25
        fit, replica = fitted(runs)
        found_ms = 1000 * (replica.decode_s(1) + replica.prefill_s(512))
        assert found_ms == pytest.approx(1.25 * prompt_ms(512), rel=0.01)
        lengths = [2**n for n in range(7, 13)]
        assert fit.prompt_errors[lengths.index(512)] == pytest.approx(1 / 1.25 - 1, abs=0.07)

    def test_the_ratio_of_several_prompts_is_found_and_no_part_of_one_prompt(self):
        fit, replica = fitted(measured(several=1.3))
        np.testing.assert_allclose(fit.several, 1.3)
        found_ms = 1000 * (replica.decode_s(1) + replica.prefill_s(4096))
        assert found_ms == pytest.approx(prompt_ms(4096), rel=0.01)
        assert 1000 * replica.prefill_s(16384) == pytest.approx(prompt_ms(16384) - 20, rel=0.01)

    def test_straight_lines_are_worse(self):
        fit, _ = fitted(measured())
        ours = np.abs(fit.prompt_errors + fit.token_errors).max()
        assert np.abs(fit.line_errors).max() > 2 * ours

    def test_intervals_are_wider_where_runs_differ_more(self):
        widths = []
        for noise in (0.01, 0.1):
            low, middle, high = fitted(measured(runs=9, noise=noise))[0].step_one_ms
            assert low <= middle <= high
            widths.append(high - low)
        assert widths[1] > 3 * widths[0]

    def test_a_batch_that_takes_less_time_than_half_of_it_was_split_and_is_left_out(self):
        runs = measured()
        runs.loc[runs["batch_size"] == 64, "prompt_time"] = 300.0
        fit, replica = fitted(runs)
        assert (fit.split_batch, fit.largest_batch) == (64, 32)
        assert replica.cache_tokens == 32 * 512
        assert replica.max_sequences == 32  # of 500 tokens

    def test_a_measured_cache_limits_the_sequences(self):
        _, replica = fitted(measured(cache_tokens=6000))
        assert replica.max_sequences == 12  # of 500 tokens

    def test_two_kinds_of_gpu_in_a_table_are_two_fits(self):
        fits = fit_gpus(pd.concat([measured(), measured().assign(hardware="other")]))
        assert [fit.names[0] for fit in fits] == ["g", "other"]


class TestCommand:
    def test_without_a_file_it_lists_the_gpus_that_a_table_can_name(self, capsys):
        assert exit_status(["gpus"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1 + len(measured_gpus())
        assert "h100-80gb" in lines[-1]

    def test_the_replica_that_it_prints_is_one_for_a_table_of_jobs(self, tmp_path, capsys):
        measured().to_csv(tmp_path / "runs.csv", index=False)
        assert exit_status(["gpus", str(tmp_path / "runs.csv")]) == 0
        name, mapping = capsys.readouterr().out.splitlines()[-1].split(": ", 1)
        assert name == "g/m/2"
        table = tmp_path / "jobs.yaml"
        table.write_text(f"- job: a\n  replica: {json.dumps(json.loads(mapping) | LENGTHS)}\n")
        assert read_jobs(table)[0].replica == fitted(measured())[1]


class TestTableOfJobs:
    @pytest.fixture
    def table(self, tmp_path):
        def write(replica):
            path = tmp_path / "jobs.yaml"
            path.write_text(f"- job: chat\n  replica: {{{replica}}}\n")
            return path

        return write

    def test_every_named_gpu_is_a_replica(self, table):
        for gpu, model, parallel in measured_gpus():
            named = f"gpu: {gpu}, model: {model}, tensor_parallel: {parallel}"
            (job,) = read_jobs(table(f"{named}, prompt_tokens: 400, output_tokens: 100"))
            assert job.replica.kind == "continuous"
            steps_s = np.array(job.replica.durations_s)
            assert (np.diff(steps_s) >= -1e-9).all()
            assert 0.02 < steps_s[0] < 0.1

    def test_a_gpu_in_a_csv_is_json(self, tmp_path):
        mapping = {"gpu": "h100-80gb", "model": "llama2-70b", "tensor_parallel": 4} | LENGTHS
        row = pd.DataFrame([{"job": "chat", "replica": json.dumps(mapping)}])
        row.to_csv(tmp_path / "jobs.csv", index=False)
        assert read_jobs(tmp_path / "jobs.csv")[0].replica == replica_of(mapping)

    def test_the_cache_of_two_gpus_holds_few_long_sequences(self, table):
        few = ON_H100.replace("tensor_parallel: 4", "tensor_parallel: 2")
        (job,) = read_jobs(table(f"{few}, prompt_tokens: 1900"))
        assert job.replica.max_sequences == 10  # 20,480 tokens for 2,000 each

    @pytest.mark.parametrize(
        ("fields", "warnings"),
        [
            ("prompt_tokens: 400", []),
            ("prompt_tokens: 9000", ["chat: 9000 prompt tokens in a step are more than the 8192"]),
            (
                "prompt_tokens: 400, max_sequences: 128",
                ["chat: 128 sequences are more than the 64 that were measured on h100-80gb"],
            ),
        ],
    )
    def test_what_was_not_measured_is_said_to_be_extrapolated(self, table, fields, warnings):
        said = [line for line in assumptions(table(f"{ON_H100}, {fields}")) if "measured" in line]
        assert len(said) == len(warnings)
        for line, begin in zip(said, warnings):
            assert line.startswith(begin)
            assert line.endswith("extrapolated")
