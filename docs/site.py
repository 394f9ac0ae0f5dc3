"""Hooks of MkDocs: README as the first page, the executed notebooks, and one page per package.

Under each notebook stands which run its pictures come from.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file by its path

from executed import BY_DEFAULTS, EXECUTED, ROOT, copy_of_run

WIDGET = "application/vnd.jupyter.widget-view+json"
# Packages with a page: those of a researcher, then those of an operator.
PACKAGES = (
    "faro_lib.workload",
    "faro_lib.queueing",
    "faro_lib.forecast",
    "faro_lib.utility",
    "faro_lib.allocate",
    "faro_lib.policies",
    "faro_lib.control",
    "faro_lib.simulate",
    "faro_lib.metrics",
    "faro_lib.experiments",
    "faro_lib.registry",
    "faro_ops.advise.recommend",
)


def on_config(config):
    """List the notebooks and the packages in the navigation."""
    sections = {name: entry for part in config.nav for name, entry in part.items()}
    _tour, *notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))  # the tour has its own entry
    sections["Research"][-1]["Notebooks"][:] = [
        {re.sub(r"^\d+_", "", path.stem): f"notebooks/{path.name}"} for path in notebooks
    ]
    sections["API"][:] = [{package: page_name(package)} for package in PACKAGES]
    return config


def page_name(package: str) -> str:
    """The path of a package's page: `faro_lib.workload` is on api/workload.md."""
    return f"api/{package.rpartition('.')[2]}.md"


def on_files(files, config):
    """Add the first page, the notebooks and the pages of the packages."""
    from mkdocs.structure.files import File  # only the environment of the docs has it

    source = Path(config.site_dir).parent  # mkdocs-jupyter renders notebooks that are files
    (source / "notebooks").mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        (source / "notebooks" / path.name).write_text(static(shown(path), origin(shown(path))))
        name = f"notebooks/{path.name}"
        files.append(File(name, str(source), config.site_dir, config.use_directory_urls))
    files.append(File.generated(config, "index.md", content=first_page()))
    for package in PACKAGES:
        files.append(File.generated(config, page_name(package), content=page_of(package)))
    return files


on_files.mkdocs_priority = 100  # before mkdocs-jupyter, which renders the notebooks that it finds


def on_post_build(config):
    """Write the search index also as a script.

    The theme loads it when pages are opened as files, without a server.
    """
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text()
    (folder / "search_index.js").write_text(f"var __index = {index}")


def shown(path: Path) -> Path:
    """The copy of a notebook that a run has executed, or `make docs`, or the notebook itself.

    The last has no pictures.
    """
    for copy in (copy_of_run(path, EXECUTED), BY_DEFAULTS / path.name):
        if copy and copy.exists():
            return copy
    return path


def origin(path: Path) -> str:
    """A sentence on the run that a shown notebook and its pictures come from."""
    times = json.loads(path.read_text())["metadata"].get("papermill", {})
    day = f" on {times['start_time'][:10]}" if "start_time" in times else ""
    if path.parent == EXECUTED:
        workload = EXECUTED.parent.name
        return f"Outputs and pictures: a run of the pipeline on the workload `{workload}`{day}."
    if path.parent == BY_DEFAULTS:
        return f"Outputs and pictures: this notebook by its defaults, on small data{day}."
    return "This notebook has not been executed, so it has no pictures."


def on_page_markdown(markdown, **_):
    """A page without links to files of the repository that are no pages, such as CONTRIBUTING."""
    return unlinked(markdown)


def first_page() -> str:
    """README as a page of the site: its links begin in docs/."""
    return unlinked((ROOT / "README.md").read_text().replace("](docs/", "]("))


def unlinked(text: str) -> str:
    """The text without links to pages that lie outside of docs/."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./[\w/]*)?[A-Z]+\.md(?:#[\w-]+)?\)", r"\1", text)


def static(path: Path, note: str = "") -> str:
    """The notebook for a static page: pictures in place of widgets, no logs.

    `note` is added as its last paragraph.
    """
    notebook = json.loads(path.read_text())
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        cell["outputs"] = [one for one in cell["outputs"] if one.get("name") != "stderr"]
        for output in cell["outputs"]:
            shown = output.get("data", {})
            shown.pop(WIDGET, None)
            if "image/png" in shown:
                shown.pop("text/plain", None)
    if note:
        cell = {"cell_type": "markdown", "metadata": {}, "source": [f"*{note}*"]}
        notebook["cells"].append(cell | {"id": "origin"})
    # The pages are one folder up on the site.
    return json.dumps(notebook).replace("](../docs/", "](../")


def page_of(package: str) -> str:
    """An API page: the package and its public modules."""
    folder = ROOT.joinpath(*package.split("."))  # of a module, the folder does not exist
    modules = sorted(one.stem for one in folder.glob("*.py") if not one.stem.startswith("_"))
    names = [package, *(f"{package}.{name}" for name in modules)]
    entries = [f"::: {name}\n    options: {{heading_level: 2}}" for name in names]
    return "\n\n".join([f"# {package}", *entries]) + "\n"
