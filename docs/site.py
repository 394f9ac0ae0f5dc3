"""Hooks of MkDocs: add the executed notebooks and one page per package, which are not committed, to
the site.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Folder of the notebooks that a run has executed. Without a run, the committed notebooks are shown,
# which have no pictures.
EXECUTED = ROOT / os.environ.get("EXECUTED", "results/synthetic/notebooks")
WIDGET = "application/vnd.jupyter.widget-view+json"
PACKAGES = (
    *(
        "workload",
        "queueing",
        "forecast",
        "bayes",
        "utility",
        "allocate",
        "policies",
        "control",
        "simulate",
    ),
    *("metrics", "experiments", "recommend", "registry"),
)


def on_config(config):
    """List the notebooks and the packages in the navigation."""
    sections = {name: entry for part in config.nav for name, entry in part.items()}
    notebooks = [
        f"notebooks/{path.name}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))[1:]
    ]
    sections["Research"][-1]["Notebooks"][:] = [
        {re.sub(r"^\d+_", "", Path(one).stem): one} for one in notebooks
    ]
    sections["API"][:] = [{name: f"api/{name}.md"} for name in PACKAGES]
    return config


def on_files(files, config):
    """Add the notebooks and the pages of the packages."""
    from mkdocs.structure.files import File  # only the environment of the docs has it

    source = Path(config.site_dir).parent  # mkdocs-jupyter renders notebooks that are files
    (source / "notebooks").mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        (source / "notebooks" / path.name).write_text(static(shown(path)))
        name = f"notebooks/{path.name}"
        files.append(File(name, str(source), config.site_dir, config.use_directory_urls))
    for name in PACKAGES:
        files.append(File.generated(config, f"api/{name}.md", content=page_of(name)))
    return files


on_files.mkdocs_priority = 100  # before mkdocs-jupyter, which renders the notebooks that it finds


def on_post_build(config):
    """Write the search index also as a script, which the theme loads when pages are opened as
    files, without a server.
    """
    folder = Path(config.site_dir) / "search"
    (folder / "search_index.js").write_text(
        f"var __index = {(folder / 'search_index.json').read_text()}"
    )


def shown(path: Path) -> Path:
    """The executed copy of a notebook, the first one if there are several (`50_simulation-16`), or
    else the notebook.
    """
    copies = [EXECUTED / path.name, *sorted(EXECUTED.glob(f"{path.stem}-*.ipynb"))]
    return next((copy for copy in copies if copy.exists() and ".partial" not in copy.name), path)


def static(path: Path) -> str:
    """The notebook without widgets, so that their pictures are shown, and without logs."""
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
    return json.dumps(notebook).replace(
        "](../docs/", "](../"
    )  # the pages are one folder up on the site


def page_of(package: str) -> str:
    """An API page: the package and its public modules."""
    folder = ROOT / "faro_lib" / package
    modules = (
        sorted(one.stem for one in folder.glob("*.py") if not one.stem.startswith("_"))
        if folder.is_dir()
        else []
    )
    names = [f"faro_lib.{package}", *(f"faro_lib.{package}.{name}" for name in modules)]
    return (
        f"# {package}\n\n"
        + "\n\n".join(f"::: {name}\n    options: {{heading_level: 2}}" for name in names)
        + "\n"
    )
