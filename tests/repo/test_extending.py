"""docs/extending.md: its files work, its commands run, and its names appear in the results."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from checkouts import ROOT, make_checkout

GUIDE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"`(\w+\.\w+)`:?\n\n```\w+\n(.*?)```", GUIDE, re.DOTALL))
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.splitlines()
]


def follow(command: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a command of the guide in the activated environment."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "FARO_PLUGINS")
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(folder)
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    checkout = make_checkout(tmp_path_factory.mktemp("extended"), real_notebooks=True)
    for name, text in FILES.items():
        (checkout.folder / name).write_text(text)
    return checkout.folder


def test_the_guide_has_a_file_for_each_kind_and_commands():
    kinds = ("policy", "forecaster", "objective", "solver")
    assert set(FILES) == {"my.yaml", *(f"my_{kind}.py" for kind in kinds)}
    assert [shlex.split(command)[0] for command in COMMANDS] == [
        "snakemake",
        "faro",
        "FARO_PLUGINS=my_policy.py",
    ]


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_the_simulator_knows_the_policy_of_the_guide(folder, command):
    done = follow(command.replace("faro ", f"{sys.executable} -m faro_ops.cli ", 1), folder)
    assert done.returncode == 0, done.stderr
    assert "Proportional" in [line.split()[0] for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def results(folder):
    done = follow(COMMANDS[0], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "results" / "synthetic"


@pytest.mark.slow
def test_the_pipeline_compares_the_policy_and_the_objective(results):
    summary = pd.read_csv(results / "simulate" / "summary.csv")
    assert {"Proportional", "Faro-Root"} <= set(summary["policy"])


@pytest.mark.slow
def test_the_pipeline_scores_the_forecaster(results):
    assert "steady" in set(pd.read_csv(results / "forecast" / "scores.csv")["forecaster"])


@pytest.mark.slow
def test_the_pipeline_compares_the_solver_on_the_new_objective(results):
    solvers = pd.read_csv(results / "sloppify" / "solvers.csv")
    assert len(solvers[(solvers["solver"] == "uphill") & (solvers["objective"] == "Root")])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("figure", "name"),
    [
        ("policies", "Proportional"),
        ("policies", "Faro-Root"),
        ("forecast_scores", "steady"),
        ("solver_time_and_gap", "uphill"),
    ],
)
def test_the_extensions_appear_in_the_figures(results, figure, name):
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not there: on Debian, apt-get install poppler-utils")
    text = subprocess.run(
        ["pdftotext", results / "figures" / f"{figure}.pdf", "-"], capture_output=True, text=True
    )
    assert name in text.stdout


@pytest.mark.slow
def test_the_extensions_appear_in_the_report(results):
    assert "<td>Proportional</td>" in (results / "report.html").read_text()
