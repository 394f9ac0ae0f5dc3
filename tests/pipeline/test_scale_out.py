"""The pipeline on a SLURM cluster that these tests start on this machine: `make test-scale-out`."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
from checkouts import make_checkout, write_notebook
from slurm_world import missing, slurm

pytestmark = [
    pytest.mark.scale_out,
    pytest.mark.skipif(
        "FARO_SCALE_OUT" not in os.environ, reason="starts SLURM: run `make test-scale-out`"
    ),
]

SMOKE = ["--configfile", "config/smoke.yaml"]
SMALL = ["--config", "capacities=[11]", "synthetic={days: 1}", "trials=1"]
NO_ACCOUNTING = ["--slurm-no-account", "--slurm-status-command", "squeue"]
QUICK = ["--slurm-init-seconds-before-status-checks", "2", "--slurm-keep-successful-logs"]


@dataclass
class Run:
    """A finished run, the jobs that it announced, and what SLURM says about each job."""

    status: int
    output: str
    planned: dict[str, int]  # rule -> number of jobs
    submitted: dict[str, str]  # SLURM's job id -> rule
    states: dict[str, str]  # SLURM's job id -> state


def run_on_slurm(checkout, *arguments) -> Run:
    if reason := missing():
        pytest.skip(reason)
    planned = checkout.would_run("--profile", "profiles/slurm", *arguments)
    options = ["--profile", "profiles/slurm", *arguments, *NO_ACCOUNTING, *QUICK]
    command = [sys.executable, "-m", "snakemake", *options]
    with slurm() as completed:
        done = subprocess.run(
            command,
            cwd=checkout.folder,
            env=checkout.environment(),
            capture_output=True,
            text=True,
            timeout=1500,
        )
        line = re.compile(r"^JobId=(\d+) .*? JobState=(\w+)", re.MULTILINE)
        states = dict(line.findall(completed.read_text()))
    logs = (checkout.folder / ".snakemake" / "slurm_logs").glob("rule_*/**/*.log")
    submitted = {log.stem: str(log).split("/rule_")[1].split("/")[0] for log in logs}
    return Run(done.returncode, done.stdout + done.stderr, planned, submitted, states)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("slurm")


@pytest.fixture(scope="module")
def smoke(folder):
    """The smoke configuration with the real notebooks."""
    return run_on_slurm(make_checkout(folder, real_notebooks=True), *SMOKE)


def test_the_smoke_configuration_runs_to_its_report(smoke, folder):
    assert smoke.status == 0, smoke.output
    assert "32 cores" in (folder / "results" / "synthetic" / "report.html").read_text()


def test_every_job_of_the_pipeline_ran_as_a_job_of_slurm(smoke):
    rules = list(smoke.submitted.values())
    assert {rule: rules.count(rule) for rule in rules} == smoke.planned
    assert {smoke.states[job] for job in smoke.submitted} == {"COMPLETED"}


def test_a_failed_job_ends_the_run_with_its_message(tmp_path):
    checkout = make_checkout(tmp_path)
    notebook = checkout.folder / "notebooks" / "10_traces.ipynb"
    write_notebook(notebook, "raise ValueError('minutes=3 is odd')")
    failed = run_on_slurm(checkout, *SMALL)
    assert failed.status != 0
    assert "minutes=3 is odd" in failed.output.partition("Errors of this run:")[2]
    states = {failed.submitted[job]: state for job, state in failed.states.items()}
    assert states == {"traces": "FAILED"}
