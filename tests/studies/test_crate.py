"""The record of a run: a Workflow Run Crate that names what it was made from and by."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT

from studies.report import crate as crates
from studies.report.entities import METADATA, sha256

CONFIG = {
    "workload": "mine.csv",
    "jobs": None,
    "capacities": (36, 32),
    "scale": {"curve": []},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with the results of one stage, and its crate."""
    folder = tmp_path_factory.mktemp("run") / "results" / "mine"
    for name in ("traces/jobs.csv", "traces/requests.parquet", "notebooks/10_traces.ipynb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "report.html").write_text("<p>A report.")
    (folder / "figures").mkdir()
    for kind in ("png", "pdf"):
        (folder / "figures" / f"offered_load.{kind}").write_text(kind)
    texts = {"offered_load": {"title": "A title", "caption": "A caption."}}
    (folder / "figures" / "captions-traces.json").write_text(json.dumps(texts))
    (folder.parent / "mine.csv").write_text("minute,job,requests\n0,a,1\n")
    sources = {"traces": ["notebooks/10_traces.ipynb", "traces/jobs.csv", "traces/gone.csv"]}
    config = CONFIG | {"workload": str(folder.parent / "mine.csv")}
    crates.write_crate(
        folder,
        config,
        sources,
        folder / "report.html",
        [],
        software=("numpy", "no-such-package"),
        commit="abc",
    )
    return folder


@pytest.fixture(scope="module")
def graph(results):
    """Identifier -> entity of the crate."""
    text = json.loads((results / METADATA).read_text())
    return {entity["@id"]: entity for entity in text["@graph"]}


def identifiers(references) -> set[str]:
    listed = references if isinstance(references, list) else [references]
    return {reference["@id"] for reference in listed}


def test_the_run_joins_the_workflow_the_inputs_and_the_outputs(results, graph):
    run = graph["#run"]
    assert run["@type"] == "CreateAction"
    assert identifiers(run["instrument"]) == {"workflow/Snakefile"}
    assert identifiers(graph["./"]["mainEntity"]) == {"workflow/Snakefile"}
    assert identifiers(graph["./"]["mentions"]) == {"#run"}
    written = {"report.html", "notebooks/10_traces.ipynb", "traces/jobs.csv"}
    assert identifiers(run["result"]) == {
        *written,
        "figures/offered_load.pdf",
        "figures/offered_load.png",
    }
    assert {"#input-mine.csv", "config.yaml", "#setting-scale"} <= identifiers(run["object"])


def test_every_file_of_the_crate_exists_and_has_its_checksum(results, graph):
    files = {name: one for name, one in graph.items() if "File" in one["@type"]}
    assert len(files) == 7
    for name, entity in files.items():
        assert entity["sha256"] == sha256(results / name)
    traces = Path(results.parent / "mine.csv")
    assert graph["#input-mine.csv"]["sha256"] == sha256(traces)


def test_a_figure_refers_to_its_table_its_notebook_and_the_line_that_draws_it(graph):
    figure = graph["figures/offered_load.png"]
    assert (figure["name"], figure["description"]) == ("A title", "A caption.")
    (line,) = (name for name in identifiers(figure["isBasedOn"]) if name.startswith("#"))
    file, _, number = line.removeprefix("#").partition(":")
    assert '"offered_load": Drawing(' in (ROOT / file).read_text().splitlines()[int(number) - 1]
    rest = identifiers(figure["isBasedOn"]) - {line}
    assert rest == {"notebooks/10_traces.ipynb", "traces/jobs.csv"}


def test_every_reference_leads_to_an_entity(graph):
    def references(value):
        if isinstance(value, dict):
            if set(value) == {"@id"}:
                yield value["@id"]
            else:
                for part in value.values():
                    yield from references(part)
        elif isinstance(value, list):
            for part in value:
                yield from references(part)

    named = {name for entity in graph.values() for name in references(entity)}
    assert named - graph.keys() == {"https://w3id.org/ro/crate/1.1"}


def test_the_settings_in_the_crate_repeat_the_run(results, graph):
    settings = yaml.safe_load((results / "config.yaml").read_text())
    assert settings["capacities"] == [36, 32]
    assert json.loads(graph["#setting-capacities"]["value"]) == [36, 32]
    names = {f"#parameter-{name}" for name in CONFIG}
    assert identifiers(graph["workflow/Snakefile"]["input"]) == names


def test_a_package_that_is_not_installed_has_no_version(graph):
    assert graph["#numpy"]["softwareVersion"]
    assert "#no-such-package" not in graph


def test_the_validator_has_an_environment_of_its_own():
    pinned = (ROOT / "envs" / "crate" / "requirements.txt").read_text().splitlines()
    assert [line for line in pinned if line.startswith("roc-validator==")]


@pytest.mark.slow
def test_the_validator_of_the_profile_accepts_the_crate_and_refuses_it_without_its_licence(
    results, tmp_path
):
    python = ROOT / "build" / "crate-venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("roc-validator is not installed: make metadata")

    def validated(folder) -> subprocess.CompletedProcess:
        command = [str(python), str(ROOT / "tests/support/validate_crate.py"), str(folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    done = validated(results)
    assert done.returncode == 0, done.stdout + done.stderr
    without = shutil.copytree(results, tmp_path / "without")
    text = json.loads((results / METADATA).read_text())
    (root,) = (one for one in text["@graph"] if one["@id"] == "./")
    del root["license"]
    (without / METADATA).write_text(json.dumps(text))
    done = validated(without)
    assert done.returncode == 1
    assert "license" in done.stdout
