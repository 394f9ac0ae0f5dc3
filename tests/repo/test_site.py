"""The site: its environment, its pages, its hooks; it loads nothing from elsewhere."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from checkouts import ROOT

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
# The first heads of the tables that are wider than the page.
SCROLLED_TABLES = """[...document.querySelectorAll(".md-typeset__scrollwrap")]
  .filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => one.querySelector("th").innerText)"""
# The first lines of the notebooks' code cells that are wider than the page.
SCROLLED_CELLS = """[...document.querySelectorAll(".jp-CodeCell .jp-InputArea pre")]
  .filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => one.innerText.split("\\n")[0])"""


def test_its_tools_are_no_part_of_the_main_environment():
    names = {
        line.split("==")[0].lower() for line in (ROOT / "requirements.txt").read_text().splitlines()
    }
    assert names.isdisjoint({"mkdocs", "mkdocs-material", "mkdocs-jupyter", "mkdocstrings"})


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    listed = set(re.findall(r"[\w/-]+\.md", json.dumps(CONFIG["nav"])))
    assert listed == {"index.md", *(path.name for path in (ROOT / "docs").glob("*.md"))}


def test_the_first_page_is_the_readme_with_links_into_the_site(hooks):
    links = re.findall(r"\]\(([^)#\s]+)", hooks.first_page())
    inside = [link for link in links if not link.startswith("http")]
    assert all((ROOT / of_site(link) / link).exists() for link in inside)
    assert "architecture.md" in inside


def test_a_link_to_a_file_that_is_no_page_of_the_site_is_text_there(hooks):
    text = "[a](../A.md#b), [c](C.md), [x](../data/README.md), [d](d.md#e)"
    assert hooks.on_page_markdown(text, page=None) == "a, c, x, [d](d.md#e)"


def of_site(link: str) -> str:
    """Folder of the repository in which a file of the site lies."""
    return "" if link.startswith("notebooks/") else "docs"


@pytest.fixture
def hooks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_shows_the_executed_notebook_also_of_a_stage_that_runs_once_per_capacity(
    hooks, monkeypatch, tmp_path
):
    monkeypatch.setattr(hooks, "EXECUTED", tmp_path)
    monkeypatch.setattr(hooks, "BY_DEFAULTS", tmp_path / "none")
    capacities = ("16.partial", "36", "32")
    for name in ("10_traces", "00_tour", *(f"50_simulation-{one}" for one in capacities)):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    for name, shown in (
        ("10_traces", "10_traces"),
        ("00_tour", "00_tour"),
        ("50_simulation", "50_simulation-32"),
    ):
        assert hooks.shown(ROOT / "notebooks" / f"{name}.ipynb") == tmp_path / f"{shown}.ipynb"
    assert (
        hooks.shown(ROOT / "notebooks" / "85_replicas.ipynb")
        == ROOT / "notebooks" / "85_replicas.ipynb"
    )


def test_a_notebook_on_the_site_shows_pictures_where_a_kernel_would_show_widgets(hooks, tmp_path):
    data = {hooks.WIDGET: {"model_id": "1"}, "image/png": "abc", "text/plain": "a picture"}
    output = {"output_type": "display_data", "data": data, "metadata": {}}
    cell = {
        "cell_type": "code",
        "source": [],
        "outputs": [output],
        "metadata": {},
        "execution_count": 1,
    }
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {"widgets": {}}}))
    shown = json.loads(hooks.static(tmp_path / "x.ipynb"))
    assert shown["cells"][0]["outputs"][0]["data"] == {"image/png": "abc"}
    assert "widgets" not in shown["metadata"]


def executed_copy(pictures: int, began: str | None = "2026-12-01T09:00:00") -> str:
    """The text of an executed notebook with so many pictures."""
    output = {"output_type": "display_data", "data": {"image/png": "abc"}, "metadata": {}}
    cell = {"cell_type": "code", "source": [], "outputs": [output] * pictures, "metadata": {}}
    metadata = {"papermill": {"start_time": began}} if began else {}
    return json.dumps({"cells": [cell | {"execution_count": 1}], "metadata": metadata})


def test_a_page_says_which_run_its_pictures_come_from(hooks, monkeypatch, tmp_path):
    run, own = tmp_path / "mine" / "notebooks", tmp_path / "own"
    for folder in (run, own):
        folder.mkdir(parents=True)
    monkeypatch.setattr(hooks, "EXECUTED", run)
    monkeypatch.setattr(hooks, "BY_DEFAULTS", own)
    (run / "10_traces.ipynb").write_text(executed_copy(2))
    (own / "00_tour.ipynb").write_text(executed_copy(6))
    (own / "10_traces.ipynb").write_text(executed_copy(1))
    said = {
        "10_traces": "a run of the pipeline on the workload `mine` on 2026-12-01.",
        "00_tour": "this notebook by its defaults, on small data on 2026-12-01.",
        "85_replicas": "This notebook has not been executed, so it has no pictures.",
    }
    for name, sentence in said.items():
        shown = hooks.shown(ROOT / "notebooks" / f"{name}.ipynb")
        page = json.loads(hooks.static(shown, hooks.origin(shown)))
        assert page["cells"][-1]["source"][0].strip("*").endswith(sentence)
    assert pictures_in(hooks.shown(ROOT / "notebooks" / "10_traces.ipynb")) == 2


def test_make_docs_executes_the_notebooks_that_no_run_has_executed_or_that_are_older_than_the_code(
    monkeypatch, tmp_path
):
    monkeypatch.syspath_prepend(ROOT / "docs")
    executed = importlib.import_module("executed")
    run, own = tmp_path / "run", tmp_path / "own"
    for folder in (run, own):
        folder.mkdir()
    monkeypatch.setattr(executed, "EXECUTED", run)
    monkeypatch.setattr(executed, "BY_DEFAULTS", own)
    every = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.stem for path in executed.missing()} == every
    (run / "50_simulation-16.ipynb").write_text("{}")
    for name in ("00_tour", "35_forecasters"):
        (own / f"{name}.ipynb").write_text("{}")
    os.utime(own / "35_forecasters.ipynb", (0, 0))
    wanted = {path.stem for path in executed.missing()}
    assert wanted == every - {"50_simulation", "00_tour"}


def pictures_in(notebook) -> int:
    """The pictures among the outputs of an executed notebook."""
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_every_executed_notebook_has_its_pictures_on_its_page_and_the_tour_has_six(site, hooks):
    """The fixture executes the tour; other notebooks have pictures after a run or `make docs`."""
    counted = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shown = hooks.shown(path)
        page = (site / "notebooks" / f"{path.stem}.html").read_text()
        counted[path.stem] = page.count('src="data:image/png;base64')
        assert counted[path.stem] == pictures_in(shown), path.stem
        assert ("has no pictures" in page) == (shown == path)
        assert shown == path or counted[path.stem] > 0, path.stem
    assert counted["00_tour"] == 6


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    builder = next(
        (path for path in (ROOT / "build/docs-venv/bin/mkdocs", shutil.which("mkdocs")) if path),
        None,
    )
    if builder is None or not shutil.which(str(builder)):
        pytest.skip("mkdocs is not installed: make docs")
    tour = [sys.executable, "docs/executed.py", "00_tour"]
    paths = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'workflow'}"}
    subprocess.run(tour, cwd=ROOT, env=paths, check=True, timeout=900)
    command = [str(builder), "build", "--quiet", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_every_notebook_is_a_page(site):
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.stem for path in (site / "notebooks").glob("*.html")} >= names
    assert not list(site.rglob("*.ipynb"))
    assert "jupyter" in (site / "notebooks" / "20_queueing.html").read_text()


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    elsewhere = re.compile(
        r'<(?:script|img|iframe)[^>]+src="https?:|<link[^>]+stylesheet[^>]+https?:'
    )
    assert not [page for page in site.rglob("*.html") if elsewhere.search(page.read_text())]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_every_page_fits_the_screen_without_a_complaint_or_a_barrier(browser, site, width, scheme):
    """Barriers are what axe-core calls serious: contrast, names, order of headings, keyboard."""
    browser.colours(scheme)
    found = {}
    for page in sorted(
        set(site.rglob("*.html")) - {site / "404.html"}
    ):  # only a server shows that one
        browser.load(page, width)
        browser.evaluate("localStorage.clear()")  # the colours of this page
        wide = ["too wide"] * (browser.evaluate("document.documentElement.scrollWidth") > width)
        if width > 1000:
            wide += [f"the table of {head} scrolls" for head in browser.evaluate(SCROLLED_TABLES)]
            wide += [f"the cell {line} scrolls" for line in browser.evaluate(SCROLLED_CELLS)]
        if problems := [*map(str, browser.complaints), *wide, *browser.barriers()]:
            found[page.relative_to(site).as_posix()] = problems
    browser.colours("")
    assert found == {}
