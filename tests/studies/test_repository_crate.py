"""The RO-Crate of the repository: fresh, valid, and in agreement with the other metadata files."""

import json
import re
import subprocess
import tomllib

import pytest
import yaml
from checkouts import ROOT

from studies.report import repository
from studies.report.entities import METADATA, metadata_text, sha256

GRAPH = {one["@id"]: one for one in json.loads((ROOT / METADATA).read_text())["@graph"]}
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
ZENODO = json.loads((ROOT / ".zenodo.json").read_text())
FIGURES = {name: one for name, one in GRAPH.items() if name.startswith("#figure-")}


def sources(entity) -> list[str]:
    return [one["@id"] for one in entity["isBasedOn"]]


@pytest.mark.slow
def test_it_is_what_make_metadata_writes():
    crate = repository.repository_crate(repository.pipeline_figures())
    assert metadata_text(crate) == (ROOT / METADATA).read_text(), "run `make metadata`"


@pytest.mark.parametrize("profile", ["workflow-ro-crate"])
@pytest.mark.slow
def test_the_validator_accepts_it_and_refuses_it_without_its_licence(profile, tmp_path):
    python = ROOT / "build" / "crate-venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("roc-validator is not installed: make crate")
    command = [str(python), str(ROOT / "tests/support/validate_crate.py")]
    done = subprocess.run([*command, str(ROOT), profile], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = json.loads((ROOT / METADATA).read_text())
    (root,) = (one for one in text["@graph"] if one["@id"] == "./")
    del root["license"]
    (tmp_path / METADATA).write_text(json.dumps(text))
    done = subprocess.run([*command, str(tmp_path), profile], capture_output=True, text=True)
    assert done.returncode == 1
    assert "license" in done.stdout


def test_citation_zenodo_crate_and_package_agree():
    root = GRAPH["./"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert root["name"] == CITATION["title"] == ZENODO["title"]
    assert root["version"] == CITATION["version"] == ZENODO["version"] == project["version"]
    licences = {CITATION["license"], ZENODO["license"], project["license"]}
    assert {root["license"]["@id"]} == {f"https://spdx.org/licenses/{one}" for one in licences}
    assert root["datePublished"] == str(CITATION["date-released"]) == ZENODO["publication_date"]
    assert root["keywords"] == ZENODO["keywords"] == project["keywords"]
    authors = [GRAPH[author["@id"]]["name"] for author in root["author"]]
    assert authors == [one["name"] for one in CITATION["authors"]]
    assert authors == [one["name"] for one in ZENODO["creators"]]


def test_they_name_the_same_related_works():
    crate = {
        identifier.removeprefix("https://doi.org/")
        for work in sources(GRAPH["./"])
        for identifier in GRAPH[work]["identifier"]
    }
    citation = {
        identifier
        for paper in CITATION["references"]
        for identifier in (paper["doi"], *(one["value"] for one in paper["identifiers"]))
    }
    zenodo = {one["identifier"] for one in ZENODO["related_identifiers"]}
    assert crate == citation == zenodo


def test_every_figure_of_the_page_has_its_notebook_its_tables_and_the_line_that_draws_it():
    page = (ROOT / "docs/figures.md").read_text()
    notebooks = dict(re.findall(r"^\| `(\w+)` \|.*\| `(\d\d_\w+)` \|", page, re.MULTILINE))
    assert set(FIGURES) == {f"#figure-{name}" for name in notebooks}
    for identifier, figure in FIGURES.items():
        name = identifier.removeprefix("#figure-")
        *tables, notebook, line = sources(figure)
        assert notebook == f"notebooks/{notebooks[name]}.ipynb"
        assert tables
        assert all(table.startswith(("#table-", "data/")) for table in tables)
        file, _, number = line.removeprefix("#").partition(":")
        drawn = (ROOT / file).read_text().splitlines()[int(number) - 1]
        assert re.search(rf'"{name}"(: |\] = )Drawing\(', drawn), "run `make metadata`"


def test_a_picture_of_the_readme_refers_to_recorded_tables_and_to_its_script():
    based_on = sources(GRAPH["docs/images/comparison.png"])
    assert "data/published-run/summary.csv" in based_on
    assert based_on[-1].startswith("#studies/comparison/tables.py:")


def test_every_recorded_file_is_described_in_data_readme_and_has_its_checksum():
    for name, text in repository.recorded_files().items():
        assert GRAPH[name]["description"] == text
        assert GRAPH[name]["sha256"] == sha256(ROOT / name), "run `make metadata`"


def test_data_of_others_have_their_licence_and_fetched_files_stay_elsewhere():
    assert GRAPH["data/azure-2019.csv.gz"]["license"]["@id"].endswith("/CC-BY-4.0")
    listed = yaml.safe_load((ROOT / "data/sources.yaml").read_text())
    for source, entry in listed.items():
        for file in entry["files"].values():
            entity = GRAPH[file["url"]]
            assert entity["sha256"] == file["sha256"]
            assert entity["license"]["@id"] == f"#licence-{source}"
    assert not [name for name in GRAPH if name.startswith("data/raw")]


def test_every_file_of_the_crate_is_in_the_repository():
    named = [
        name
        for name, one in GRAPH.items()
        if {"File", "Dataset"}
        & set(one["@type"] if isinstance(one["@type"], list) else [one["@type"]])
        and not name.startswith("https://")
    ]
    assert len(named) > 50
    assert [name for name in named if not (ROOT / name).exists()] == []
