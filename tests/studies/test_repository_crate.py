"""The RO-Crate of the repository: in agreement with the other metadata files, and complete."""

import json
import re
import tomllib

import pytest
import yaml
from checkouts import ROOT

from studies.report import repository
from studies.report.entities import metadata_text, sha256

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
ZENODO = json.loads((ROOT / ".zenodo.json").read_text())


def graph_of(figures) -> dict[str, dict]:
    """Identifier -> entity of the crate with these figures."""
    text = metadata_text(repository.repository_crate(figures))
    return {one["@id"]: one for one in json.loads(text)["@graph"]}


@pytest.fixture(scope="module")
def graph():
    """The crate without the figures of the pipeline, which take Snakemake to list."""
    return graph_of([])


def sources(entity) -> list[str]:
    return [one["@id"] for one in entity["isBasedOn"]]


def test_citation_zenodo_crate_and_package_agree(graph):
    root = graph["./"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert root["name"] == CITATION["title"] == ZENODO["title"]
    assert root["version"] == CITATION["version"] == ZENODO["version"] == project["version"]
    licences = {CITATION["license"], ZENODO["license"], project["license"]}
    assert {root["license"]["@id"]} == {f"https://spdx.org/licenses/{one}" for one in licences}
    assert root["datePublished"] == str(CITATION["date-released"]) == ZENODO["publication_date"]
    assert root["keywords"] == ZENODO["keywords"] == project["keywords"]
    authors = [graph[author["@id"]]["name"] for author in root["author"]]
    assert authors == [one["name"] for one in CITATION["authors"]]
    assert authors == [one["name"] for one in ZENODO["creators"]]


def test_they_name_the_same_related_works(graph):
    crate = {
        identifier.removeprefix("https://doi.org/")
        for work in sources(graph["./"])
        for identifier in graph[work]["identifier"]
    }
    citation = {
        identifier
        for paper in CITATION["references"]
        for identifier in (paper["doi"], *(one["value"] for one in paper["identifiers"]))
    }
    zenodo = {one["identifier"] for one in ZENODO["related_identifiers"]}
    assert crate == citation == zenodo


@pytest.mark.slow
def test_every_figure_of_the_page_has_its_notebook_its_tables_and_the_line_that_draws_it():
    graph = graph_of(repository.pipeline_figures())
    figures = {name: one for name, one in graph.items() if name.startswith("#figure-")}
    page = (ROOT / "docs/comparison.md").read_text()
    notebooks = dict(re.findall(r"^\| `(\w+)` \|.*\| `(\d\d_\w+)` \|", page, re.MULTILINE))
    assert set(figures) == {f"#figure-{name}" for name in notebooks}
    for identifier, figure in figures.items():
        name = identifier.removeprefix("#figure-")
        *tables, notebook, line = sources(figure)
        assert notebook == f"notebooks/{notebooks[name]}.ipynb"
        assert tables
        assert all(table.startswith(("#table-", "data/")) for table in tables)
        file, _, number = line.removeprefix("#").partition(":")
        drawn = (ROOT / file).read_text().splitlines()[int(number) - 1]
        assert re.search(rf'"{name}"(: |\] = )Drawing\(', drawn)


def test_a_picture_of_the_readme_refers_to_recorded_tables_and_to_its_script(graph):
    based_on = sources(graph["docs/images/comparison.png"])
    assert "data/published-run/summary.csv" in based_on
    assert based_on[-1].startswith("#studies/comparison/tables.py:")


def test_every_recorded_file_is_described_in_data_readme_and_has_its_checksum(graph):
    for name, text in repository.recorded_files().items():
        assert graph[name]["description"] == text
        assert graph[name]["sha256"] == sha256(ROOT / name)


def test_data_of_others_have_their_licence_and_fetched_files_stay_elsewhere(graph):
    assert graph["data/azure-2019.csv.gz"]["license"]["@id"].endswith("/CC-BY-4.0")
    listed = yaml.safe_load((ROOT / "data/sources.yaml").read_text())
    for source, entry in listed.items():
        for file in entry["files"].values():
            entity = graph[file["url"]]
            assert entity["sha256"] == file["sha256"]
            assert entity["license"]["@id"] == f"#licence-{source}"
    assert not [name for name in graph if name.startswith("data/raw")]


def test_every_file_of_the_crate_is_in_the_repository(graph):
    named = [
        name
        for name, one in graph.items()
        if {"File", "Dataset"}
        & set(one["@type"] if isinstance(one["@type"], list) else [one["@type"]])
        and not name.startswith("https://")
    ]
    assert len(named) > 50
    assert [name for name in named if not (ROOT / name).exists()] == []
