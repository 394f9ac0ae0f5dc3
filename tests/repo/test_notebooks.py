"""Notebooks: small diffs, and a checked number in each that fails if the library changes it."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from checkouts import ROOT
from faro_pipeline.notebook import run_notebook

from faro_lib.files import find_upwards
from studies.live import figures as live
from studies.sensitivity import figures as sensitivity
from studies.tables.wording import markdown_table

EXERCISES = sorted((ROOT / "notebooks/exercises").glob("*.ipynb"))
NOTEBOOKS = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *EXERCISES]
SOLUTION = "hide-input"
RECORDED = ROOT / "data/recorded-live"
CHECKED = "nbval-check-output"
METADATA = {"kernelspec", "language_info"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def test_it_begins_with_a_question_and_has_one_cell_of_parameters(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert sum("parameters" in tags(cell) for cell in notebook.cells) == 1


def test_outputs_are_kept_only_where_they_are_checked(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code" and CHECKED not in tags(cell):
            assert cell.outputs == []
            assert cell.execution_count is None


def test_a_number_is_checked(notebook):
    texts = [
        output.get("text", "")
        for cell in notebook.cells
        if CHECKED in tags(cell)
        for output in cell.outputs
    ]
    assert re.search(r"\d", "".join(texts))


def test_there_is_no_stray_metadata(notebook):
    assert set(notebook.metadata) == METADATA
    for cell in notebook.cells:
        hidden = {"jupyter"} if SOLUTION in tags(cell) else set()
        assert set(cell.metadata) <= {"tags"} | hidden
    assert [cell.id for cell in notebook.cells] == [
        f"cell-{n:02d}" for n in range(len(notebook.cells))
    ]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda path: path.stem)
def test_the_solutions_of_an_exercise_are_collapsed_checked_and_follow_a_cell_of_the_student(
    exercise,
):
    cells = nbformat.read(exercise, as_version=4).cells
    solutions = [number for number, cell in enumerate(cells) if SOLUTION in tags(cell)]
    assert solutions
    for number in solutions:
        jupyter = cells[number].metadata["jupyter"]
        assert jupyter == {"outputs_hidden": True, "source_hidden": True}
        assert CHECKED in tags(cells[number])
        earlier = [cell for cell in cells[:number] if cell.cell_type == "code"]
        assert SOLUTION not in tags(earlier[-1])


def test_the_table_of_contents_has_every_notebook_with_its_question():
    page = (ROOT / "notebooks/README.md").read_text()
    listed = dict(re.findall(r"^\| \[\w+\]\(([\w/]+\.ipynb)\) \| (.+) \|$", page, re.MULTILINE))
    titles = {
        path.relative_to(ROOT / "notebooks").as_posix(): nbformat.read(path, as_version=4)
        .cells[0]
        .source.splitlines()[0]
        .removeprefix("# ")
        for path in NOTEBOOKS
    }
    titles = {path: re.sub(r"^Exercise \d: ", "", title) for path, title in titles.items()}
    assert listed == titles


def test_make_lab_opens_the_table_of_contents_as_a_page():
    command = ["make", "--dry-run", "-o", ".venv/.ready", "lab"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "jupyter lab --notebook-dir=. notebooks/README.md" in done.stdout
    # What JupyterLab's server reads with the environment of `make lab`.
    from jupyter_server.services.config.manager import ConfigManager

    manager = ConfigManager(
        config_dir_name="labconfig", read_config_path=[str(ROOT / "notebooks/.jupyter/labconfig")]
    )
    settings = manager.get("default_setting_overrides")
    viewers = settings["@jupyterlab/docmanager-extension:plugin"]["defaultViewers"]
    assert viewers == {"markdown": "Markdown Preview"}


@pytest.mark.parametrize("folder", [ROOT, ROOT / "notebooks"], ids=["top", "notebooks"])
def test_a_file_that_it_reads_by_default_is_found_from_the_top_folder_and_from_its_own(
    notebook, folder, monkeypatch
):
    monkeypatch.chdir(folder)
    cell = next(cell for cell in notebook.cells if "parameters" in tags(cell))
    defaults: dict = {}
    exec(cell.source, defaults)
    paths = [value for name, value in defaults.items() if name != "raw" and "data/" in str(value)]
    assert not [path for path in paths if not find_upwards(path).exists()]
    assert all(
        "../" not in path and f"find_upwards({name})" in str(notebook)
        for name, path in defaults.items()
        if path in paths
    )


def test_the_recorded_live_run_is_shown_without_a_cluster(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    source, options = (
        ROOT / "notebooks/80_live.ipynb",
        {"results": str(tmp_path), "backend": "recorded"},
    )
    run_notebook(source, tmp_path / "80_live.ipynb", options, tmp_path / "80_live.log")
    for name in ("summary.csv", "minutes.parquet", "decisions.parquet"):
        assert (tmp_path / "live/recorded" / name).exists()
    shown, recorded = (
        pd.read_csv(folder / "summary.csv") for folder in (tmp_path / "live/recorded", RECORDED)
    )
    pd.testing.assert_frame_equal(shown, recorded)
    drawing = live.draw(tmp_path, "recorded", str(ROOT / "data/published"))["live"]
    assert drawing.recorded
    assert "(the paper's simulator and cluster:" in drawing.caption


def test_papermill_runs_it_from_the_top_folder(tmp_path):
    command = [
        sys.executable,
        "-m",
        "papermill",
        "notebooks/81_kubernetes.ipynb",
        str(tmp_path / "out.ipynb"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def cell(stem: str, beginning: str) -> str:
    """The source of the notebook's code cell that begins with these words."""
    cells = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4).cells
    (source,) = [
        one.source for one in cells if one.cell_type == "code" and one.source.startswith(beginning)
    ]
    return source


@pytest.mark.parametrize("objective", ["Sum", "FairSum"])
def test_the_table_of_solvers_is_of_the_first_objective_if_sum_is_not_compared(objective):
    kinds = pd.MultiIndex.from_product([[objective], ["exact"], ["precise", "relaxed"]])
    answers = kinds.to_frame(index=False, name=["objective", "solver", "formulation"]).assign(
        gap_per_job=0.0, seconds=1.0
    )
    names = {"answers": answers, "objectives": [objective]}
    names |= {"Markdown": str, "markdown_table": markdown_table}
    source, last = cell("40_sloppification", "shown =").rsplit("\n", 1)
    exec(source, names)
    text = eval(last, names)
    assert f"milliseconds, for {objective}:" in text
    assert "| exact | 0.0000 | 0.0000 | 1000.00 |" in text


def test_parameters_with_one_value_each_are_not_drawn():
    rows = [("cold_start_s", 35.0, policy) for policy in ("FairShare", "Faro-Sum")]
    summary = pd.DataFrame(rows, columns=["parameter", "value", "policy"]).assign(
        trial=0, lost_utility=1.0
    )
    exec(cell("65_sensitivity", "if draw"), {"draw": sensitivity, "summary": summary})


def test_the_largest_clusters_need_not_have_faro_among_their_policies():
    summary = pd.DataFrame({"policy": ["AIAD"], "decision_ms_p99": [3.0]})
    exec(cell("70_scale", "slowest_ms"), {"summary": summary, "runs": [summary], "Markdown": str})


def test_stage_70_shows_the_measures_of_its_own_runs_and_reads_no_other_stage():
    notebook = nbformat.read(ROOT / "notebooks" / "70_scale.ipynb", as_version=4)
    assert '"simulate"' not in "".join(one.source for one in notebook.cells)


@pytest.mark.slow
def test_nbval_fails_once_a_constant_of_the_library_has_changed(tmp_path):
    """In a copy of the library; `make test` runs nbval on the library as it is."""
    shutil.copytree(
        ROOT / "faro_lib", tmp_path / "faro_lib", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "10_traces.ipynb", tmp_path / "notebooks")
    module = tmp_path / "faro_lib" / "workload" / "synthetic.py"
    changed = re.sub(
        r"^LOAD_PER_JOB = [\d.]+", "LOAD_PER_JOB = 1.0", module.read_text(), flags=re.MULTILINE
    )
    assert changed != module.read_text()
    module.write_text(changed)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval-lax",
        "notebooks",
    ]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1, done.stdout
    assert "failed" in done.stdout
