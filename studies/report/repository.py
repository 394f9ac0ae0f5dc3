"""The RO-Crate of the repository: `make metadata` writes it at the top, where Git ignores it.

It repeats what other files say: title, authors, licence and paper (CITATION.cff, .zenodo.json),
the data (data/README.md, data/sources.yaml), the notebooks, and for each figure its tables, its
notebook and the line of code that draws it. It has the SHA-256 of recorded tables, but not of
code, which Git identifies. `studies.report.crate` writes the crate of a run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from studies.report.entities import (
    LICENCES,
    LICENSE,
    add_entity,
    add_licence,
    add_profiles,
    described,
    sha256,
    write_metadata,
)
from studies.report.sources import ROOT, line_of
from studies.tables.pages import declaring

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

WORKFLOW = "workflow/Snakefile"
PROFILES = {"https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate"}
PAGES = ("README.md", "LICENSE", "CITATION.cff", "docs/artifact.md", "docs/comparison.md")
FOLDERS = {
    "faro_lib": "The library: queueing, forecasts, exact decisions, policies and the simulator",
    "faro_ops": "The operator's package: the command `faro`, Ray Serve and Kubernetes",
    "studies": "The experiments, their figures and the report",
    "workflow": "The pipeline: a Snakemake workflow of one notebook per stage",
    "docs": "The documentation",
    "tests": "The tests",
}
# Every figure of the pipeline is one of this run. The workload of the recorded run is published.
LARGEST = ("--configfile", "config/full.yaml", "--config", "workload=synthetic")
LARGEST_STAGES = ("scale={curve: [20]}", "llm={capacities: [22]}")
RESULTS = "results/synthetic/"
# A row of a table in Markdown with three cells.
ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)
FIGURE_ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


class Figure(NamedTuple):
    """A figure of the pipeline, and the files that it is made from."""

    name: str
    notebook: str
    tables: tuple[str, ...]  # paths below the folder of the results, or of recorded tables
    line: str | None  # file:line of the code that draws it


def repository_crate(figures: list[Figure]) -> ROCrate:
    """The crate of the repository with these figures."""
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    add_profiles(crate, PROFILES)
    licences = {url: add_licence(crate, url) for url in LICENCES}
    crate.license = licences[LICENSE]
    _cite(crate)
    for name in PAGES:
        crate.add_file(dest_path=name, properties=described(ROOT / name, name))
    for name, text in FOLDERS.items():
        crate.add_directory(dest_path=f"{name}/", properties={"name": name, "description": text})
    _add_workflow(crate)
    files = {
        **dict(_notebooks(crate)),
        **dict(_recorded(crate, licences)),
    }
    _add_published_files(crate)
    shown = [_add_figure(crate, figure, files) for figure in figures]
    pictures = list(_pictures(crate, files))
    crate.root_dataset["mentions"] = [*shown, *pictures]
    return crate


def pipeline_figures() -> list[Figure]:
    """Every figure of the pipeline, by name, as a dry run of Snakemake names their sources."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--printshellcmds"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'workflow'}"}
    done = subprocess.run(
        [*command, *LARGEST, *LARGEST_STAGES],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"snakemake: {done.stderr.strip().splitlines()[-1]}")
    named = FIGURE_ROW.findall((ROOT / "docs/comparison.md").read_text())
    figures = [
        Figure(name, notebook, tables, line)
        for module, notebook, tables in sorted(_drawn(done.stdout))
        for name, _ in named
        if (line := line_of(module, name))
    ]
    return sorted(figures)


def _drawn(said: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(module, notebook, tables) of each stage, from the shell commands of a dry run."""
    for line in said.splitlines():
        _, found, command = line.partition("-m faro_pipeline draw ")
        if not found:
            continue
        module, _captions, _options, *sources = shlex.split(command.partition(" 2> ")[0])
        # Snakemake reads recorded tables from a copy, whose path ends with that of the original.
        *tables, notebook = (path.rpartition(f"{ROOT}/")[2] for path in sources)
        yield module, notebook, tuple(tables)


def _cite(crate: ROCrate) -> None:
    """Title, version, authors and paper, from CITATION.cff and .zenodo.json."""
    cited = citation()
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    crate.name = cited["title"]
    crate.description = zenodo["description"]
    crate.datePublished = str(cited["date-released"])
    crate.keywords = zenodo["keywords"]
    root = crate.root_dataset
    root["version"] = cited["version"]
    root["author"] = [_author(crate, author) for author in cited["authors"]]
    root["isBasedOn"] = [_paper(crate, paper) for paper in cited["references"]]


def citation() -> dict[str, Any]:
    """The content of CITATION.cff."""
    import yaml

    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def _paper(crate: ROCrate, paper: dict[str, Any]) -> Entity:
    also = [one["value"] for one in paper.get("identifiers", [])]
    return add_entity(
        crate,
        f"https://doi.org/{paper['doi']}",
        "ScholarlyArticle",
        name=paper["title"],
        author=[_author(crate, author) for author in paper["authors"]],
        datePublished=str(paper["year"]),
        identifier=[f"https://doi.org/{paper['doi']}", *also],
    )


def _author(crate: ROCrate, author: dict[str, str]) -> Entity:
    if "name" in author:
        return add_entity(crate, _local(author["name"]), "Organization", name=author["name"])
    name = f"{author['given-names']} {author['family-names']}"
    return add_entity(crate, _local(name), "Person", name=name)


def _add_workflow(crate: ROCrate) -> None:
    from rocrate.model.computationalworkflow import ComputationalWorkflow

    workflow = crate.add(ComputationalWorkflow(crate, dest_path=WORKFLOW))
    workflow["name"] = "Faro: from traces to figures"
    workflow["license"] = crate.license
    workflow["programmingLanguage"] = add_entity(
        crate,
        "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
        "ComputerLanguage",
        name="Snakemake",
        url="https://snakemake.github.io",
    )
    crate.mainEntity = workflow


def _notebooks(crate: ROCrate) -> Iterator[tuple[str, Entity]]:
    """(path, entity) of each notebook, with its question and what it shows."""
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        name = path.relative_to(ROOT).as_posix()
        first = "".join(json.loads(path.read_text())["cells"][0]["source"])
        question, _, text = first.removeprefix("# ").partition("\n\n")
        properties = described(path, name) | {
            "name": question,
            "description": " ".join(_plain(text).split()),
        }
        yield name, crate.add_file(dest_path=name, properties=properties)


def recorded_files() -> dict[str, str]:
    """Path of each committed file of data/ -> what data/README.md says of it.

    ValueError if a file is in no row of the page, or in several.
    """
    listed = _committed("data")
    said: dict[str, str] = {}
    for names, where, text in ROW.findall((ROOT / "data/README.md").read_text()):
        if not where.startswith("committed"):
            continue
        for name in re.findall(r"`([^`]+)`", names):
            for path in listed:
                inside = path.startswith(f"data/{name}") if name.endswith("/") else False
                if not inside and path != f"data/{name}":
                    continue
                if path in said:
                    raise ValueError(f"data/README.md: {path} is in two rows")
                said[path] = _plain(text)
    missing = sorted(set(listed) - set(said) - {"data/README.md", "data/sources.yaml"})
    if missing:
        raise ValueError(f"data/README.md: no row for {missing[0]}")
    return dict(sorted(said.items()))


def _committed(folder: str) -> list[str]:
    """Paths of the committed files in a folder."""
    command = ["git", "ls-files", "-z", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def _recorded(crate: ROCrate, licences: dict[str, Entity]) -> Iterator[tuple[str, Entity]]:
    """(path, entity) of each recorded file, with its SHA-256, and its licence if it is not ours."""
    for name, text in recorded_files().items():
        properties = described(ROOT / name, name) | {
            "description": text,
            "sha256": sha256(ROOT / name),
        }
        entity = crate.add_file(dest_path=name, properties=properties)
        if licence := _licence_in(text):
            entity["license"] = licences[licence]
        yield name, entity


def _licence_in(text: str) -> str | None:
    """The licence that a text about data names; None for data that were made here."""
    return "https://spdx.org/licenses/CC-BY-4.0" if "CC-BY 4.0" in text else None


def _add_published_files(crate: ROCrate) -> None:
    """The files of data/sources.yaml, which are elsewhere and are not redistributed."""
    import yaml

    for source, entry in yaml.safe_load((ROOT / "data/sources.yaml").read_text()).items():
        licence = add_entity(
            crate,
            f"#licence-{source}",
            "CreativeWork",
            name=f"Licence of {source}",
            description=" ".join(entry["licence"].split()),
        )
        for name, file in entry["files"].items():
            text = f"{entry['what']} {entry['attribution']}"
            properties = {
                "name": name,
                "description": " ".join(text.split()),
                "sha256": file["sha256"],
            }
            crate.add_file(file["url"], properties=properties)["license"] = licence


def _add_figure(crate: ROCrate, figure: Figure, files: dict[str, Entity]) -> Entity:
    """A figure that the pipeline draws: no file of the repository, but its sources are."""
    contents = dict(FIGURE_ROW.findall((ROOT / "docs/comparison.md").read_text()))
    tables = [files.get(name) or _table(crate, name) for name in figure.tables]
    return add_entity(
        crate,
        f"#figure-{figure.name}",
        "CreativeWork",
        name=f"Figure {figure.name}",
        description=_plain(contents[figure.name]),
        isBasedOn=[*tables, files[figure.notebook], _line(crate, figure.line)],
    )


def _table(crate: ROCrate, name: str) -> Entity:
    """A table that each run writes."""
    inside = name.removeprefix(RESULTS)
    text = f"results/<workload>/{inside}, which a run writes"
    return add_entity(crate, f"#table-{_slug(inside)}", "CreativeWork", name=text)


def _line(crate: ROCrate, line: str | None) -> Entity:
    return add_entity(crate, f"#{line}", "SoftwareSourceCode", name=f"{line}, which draws it")


def _pictures(crate: ROCrate, files: dict[str, Entity]) -> Iterator[Entity]:
    """The pictures of README and docs that experiments draw from recorded tables."""
    for module, _, pictures in declaring():
        lines = (ROOT / module).read_text().splitlines()
        for picture in pictures:
            tables = [
                entity
                for path, entity in files.items()
                if any(path == one or path.startswith(f"{one}/") for one in picture.files)
            ]
            described_as = described(ROOT / picture.path, picture.path)
            entity = crate.add_file(dest_path=picture.path, properties=described_as)
            number = next(n for n, line in enumerate(lines, 1) if picture.path in line)
            entity["isBasedOn"] = [*tables, _line(crate, f"{module}:{number}")]
            yield entity


def _plain(text: str) -> str:
    """Markdown without links and backticks."""
    return LINK.sub(r"\1", text).replace("`", "")


def _local(name: str) -> str:
    return f"#{_slug(name)}"


def _slug(name: str) -> str:
    return re.sub(r"[^\w./-]+", "-", name).strip("-").lower()


if __name__ == "__main__":
    write_metadata(repository_crate(pipeline_figures()), ROOT)
