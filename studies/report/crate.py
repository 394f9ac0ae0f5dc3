"""The record of a run as a Workflow Run Crate (RO-Crate 1.1), beside its report.

It names inputs, parameters, software, and every output with its SHA-256. A figure refers to its
tables, its notebook and the line of code that draws it. Source of the vocabulary:
https://w3id.org/ro/wfrun/workflow/0.5.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faro_lib import __version__
from faro_lib.workload import PUBLISHED, SYNTHETIC
from studies.report.entities import (
    LICENSE,
    add_entity,
    add_licence,
    add_profiles,
    described,
    sha256,
    write_metadata,
)
from studies.report.sources import ROOT, line_of

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

SNAKEFILE = "workflow/Snakefile"  # a copy, because a crate's workflow is one of its files
SETTINGS = "config.yaml"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}


def write_crate(
    results: Path,
    config: Mapping[str, Any],
    sources: Mapping[str, Sequence[str]],
    page: Path,
    notebooks: Sequence[str | Path],
    *,
    software: Sequence[str],
    commit: str,
) -> None:
    """Write `ro-crate-metadata.json`, the settings and the Snakefile into the folder `results`.

    `sources` maps each stage to its notebook and tables, relative to `results`. `software` are
    the packages whose versions are recorded, and `commit` is that of the code.
    """
    import yaml
    from rocrate.rocrate import ROCrate

    (results / SNAKEFILE).parent.mkdir(exist_ok=True)
    shutil.copyfile(ROOT / SNAKEFILE, results / SNAKEFILE)
    (results / SETTINGS).write_text(yaml.safe_dump(_plain(config), sort_keys=False))

    crate = ROCrate(version="1.1")
    crate.name = f"A run of Faro's pipeline on the workload {results.name}"
    crate.description = (
        "Tables, figures and executed notebooks of one run: policies that allot replicas to "
        "inference services, simulated and compared. report.html shows them on one page."
    )
    add_profiles(crate, PROFILES)
    crate.license = add_licence(crate, LICENSE)

    names = _outputs(results, sources, page, notebooks)
    outputs = {name: _file(crate, results, name) for name in names}
    _describe_figures(crate, results, sources, outputs)
    workflow = _workflow(crate, results, software, commit)
    parameters = list(_parameters(crate, workflow, config))
    times = [(results / name).stat().st_mtime for name in names]
    crate.datePublished = datetime.fromtimestamp(max(times), UTC)
    action = add_entity(
        crate,
        "#run",
        "CreateAction",
        name=f"Run of {SNAKEFILE}",
        startTime=_iso(min(times)),
        endTime=_iso(max(times)),
        actionStatus="http://schema.org/CompletedActionStatus",
        instrument=workflow,
        object=[*_inputs(crate, config), _file(crate, results, SETTINGS), *parameters],
        result=list(outputs.values()),
    )
    crate.root_dataset["mentions"] = [action]
    write_metadata(crate, results)


def _outputs(
    results: Path,
    sources: Mapping[str, Sequence[str]],
    page: Path,
    notebooks: Sequence[str | Path],
) -> list[str]:
    """The files of the run, relative to `results`, each once."""
    captions = [
        json.loads((results / f"figures/captions-{name}.json").read_text()) for name in sources
    ]
    pictures = [
        f"figures/{name}.{kind}" for text in captions for name in text for kind in ("pdf", "png")
    ]
    listed = [
        page.name,
        *(f"notebooks/{Path(path).name}" for path in notebooks),
        *(file for files in sources.values() for file in files),
        *pictures,
    ]
    return [name for name in dict.fromkeys(listed) if (results / name).is_file()]


def _file(crate: ROCrate, results: Path, name: str) -> Entity:
    """The entity of a file of the crate, with its size and SHA-256."""
    path = results / name
    properties = {
        **described(path, name),
        "contentSize": str(path.stat().st_size),
        "dateModified": _iso(path.stat().st_mtime),
        "sha256": sha256(path),
    }
    return crate.add_file(dest_path=name, properties=properties)


def _describe_figures(
    crate: ROCrate,
    results: Path,
    sources: Mapping[str, Sequence[str]],
    outputs: Mapping[str, Entity],
) -> None:
    """Give each figure its title and caption, and what it is made from."""
    for stage, files in sources.items():
        texts = json.loads((results / f"figures/captions-{stage}.json").read_text())
        for name, text in texts.items():
            made_from = [outputs[file] for file in files if file in outputs]
            if line := line_of(f"studies.{stage}.figures", name):
                made_from.append(
                    add_entity(
                        crate, f"#{line}", "SoftwareSourceCode", name=f"{line}, which draws {name}"
                    )
                )
            for kind in ("pdf", "png"):
                if figure := outputs.get(f"figures/{name}.{kind}"):
                    figure["name"] = text["title"]
                    figure["description"] = text["caption"]
                    figure["isBasedOn"] = made_from


def _workflow(crate: ROCrate, results: Path, software: Sequence[str], commit: str) -> Entity:
    """The workflow, its language, and the software that it ran with."""
    from rocrate.model.computationalworkflow import ComputationalWorkflow

    workflow = crate.add(ComputationalWorkflow(crate, dest_path=SNAKEFILE))
    workflow["name"] = "Faro: from traces to figures"
    workflow["version"] = f"{__version__}, commit {commit}"
    workflow["sha256"] = sha256(results / SNAKEFILE)
    language = {"name": "Snakemake", "url": "https://snakemake.github.io"}
    language["version"] = version("snakemake")
    workflow["programmingLanguage"] = add_entity(
        crate,
        "https://w3id.org/workflowhub/workflow-ro-crate#snakemake",
        "ComputerLanguage",
        **language,
    )
    workflow["license"] = crate.license
    workflow["softwareRequirements"] = [
        add_entity(crate, f"#{name}", "SoftwareApplication", name=name, softwareVersion=number)
        for name, number in _versions(software)
    ]
    crate.mainEntity = workflow
    return workflow


def _versions(software: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(package, version) of those packages that are installed."""
    for name in software:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _parameters(crate: ROCrate, workflow: Entity, config: Mapping[str, Any]) -> Iterator[Entity]:
    """The settings as values of the workflow's formal parameters; a section is JSON text."""
    formal = []
    for name, value in _plain(config).items():
        text = value if isinstance(value, str) else json.dumps(value)
        parameter = add_entity(
            crate, f"#parameter-{name}", "FormalParameter", additionalType="Text", name=name
        )
        formal.append(parameter)
        yield add_entity(
            crate,
            f"#setting-{name}",
            "PropertyValue",
            name=name,
            value=text,
            exampleOfWork=parameter,
        )
    workflow["input"] = formal


def _inputs(crate: ROCrate, config: Mapping[str, Any]) -> Iterator[Entity]:
    """The files that the run has read: they are not in the crate, but have a SHA-256."""
    if config["workload"] == PUBLISHED:
        import yaml

        published = yaml.safe_load((ROOT / "data" / "sources.yaml").read_text())[PUBLISHED]
        for name, file in published["files"].items():
            checksum = {"name": name, "sha256": file["sha256"]}
            yield crate.add_file(file["url"], properties=checksum)
    for path in (config["workload"], config.get("jobs")):
        if path in (None, SYNTHETIC, PUBLISHED) or not Path(path).is_file():
            continue
        name = Path(path).name
        yield add_entity(
            crate, f"#input-{name}", "CreativeWork", name=name, sha256=sha256(Path(path))
        )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with lists in place of tuples."""
    return json.loads(json.dumps(config))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
