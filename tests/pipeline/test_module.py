"""The workflow as a module of another one: the study of docs/module.md, from the page alone."""

import math
import re
import textwrap

import pandas as pd
import pytest
from checkouts import ROOT, Checkout, make_checkout

from faro_lib.policies import FairShare
from faro_lib.simulate import simulate
from faro_lib.workload.synthetic import synthetic
from studies.tables.run_tables import tables_of

PAGE = (ROOT / "docs" / "module.md").read_text()


def block(kind: str) -> str:
    """The only block of this kind on the page."""
    (text,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return text


def requests(minute: int, job: str) -> int:
    mean, phase = {"search": (900, 0), "caption": (400, 30)}[job]
    return round(mean * (1 + 0.6 * math.sin((minute + phase) / 60 * 2 * math.pi)))


def study_beside(clone: Checkout) -> Checkout:
    """The folder `my-study` of the page, beside the clone `faro`; two days of an hour."""
    folder = clone.folder.parent / "my-study"
    folder.mkdir()
    for name, kind in (("jobs.csv", "csv"), ("config.yaml", "yaml"), ("Snakefile", "python")):
        (folder / name).write_text(block(kind))
    rows = [
        (day, minute, job, requests(minute, job))
        for day in (1, 2)
        for minute in range(60)
        for job in ("search", "caption")
    ]
    table = pd.DataFrame(rows, columns=["day", "minute", "job", "requests"])
    table.to_csv(folder / "traces.csv", index=False)
    return Checkout(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The study beside a clone with stand-in notebooks."""
    return study_beside(make_checkout(tmp_path_factory.mktemp("study") / "faro"))


def test_the_head_of_the_traces_on_the_page_is_what_the_test_uses(study):
    shown = re.search(r"^    day,minute,.*\n(?:    \d.*\n)+", PAGE, re.MULTILINE)[0]
    columns = textwrap.dedent(shown).splitlines()[0]
    assert (study.folder / "traces.csv").read_text().splitlines()[0] == columns


def test_the_page_lists_the_columns_of_the_tables_of_a_run():
    day = synthetic(seed=1, jobs=2, days=1, minutes=10).workload()
    tables = tables_of(simulate(day, FairShare(), 8, seed=1), {})
    listed = {
        file: set(re.findall(r"`(\w+)`", columns))
        for file, columns in re.findall(r"^\| `([\w.]+)` \| [^|]+ \| (.*) \|$", PAGE, re.MULTILINE)
    }
    assert listed["summary.csv"] == set(tables.summary.columns)
    assert listed["minutes.parquet"] == set(tables.minutes.columns)
    assert listed["decisions.parquet"] == set(tables.decisions.columns)


def test_both_rules_of_the_study_run_after_the_stages_that_they_need(study):
    planned = study.would_run()
    assert {"late", "winner", "faro_report", "faro_traces", "faro_draw_comparison"} <= set(planned)
    needed = {"winner", "faro_traces", "faro_queueing", "faro_simulate", "faro_simulated"}
    assert set(study.would_run("--", "winner.txt")) == needed


def test_settings_of_the_module_are_those_of_its_section_and_the_defaults(study):
    three = study.would_run("--config", "faro={capacities: [6, 7, 8]}")
    assert three["faro_simulate"] == 3
    wrong = study.snakemake("--dry-run", "--config", "faro={capacities: [1]}")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("config: capacities: capacity=1 cores cannot hold")


def test_the_module_passes_the_linter(study):
    done = study.snakemake("--lint")
    found = re.findall(r"Lints for (?:rule|snakefile) (\S+)", done.stdout + done.stderr)
    assert not [name for name in found if name.startswith("faro") or "/workflow/" in name]


def test_the_module_writes_nothing_into_the_clone(study):
    clone = study.folder.parent / "faro"
    before = {path for path in clone.rglob("*") if "__pycache__" not in path.parts}
    done = study.snakemake("--", "results/traces/traces/jobs.csv")
    assert done.returncode == 0, done.stderr
    assert (study.folder / "results/traces/notebooks/10_traces.ipynb").exists()
    assert {path for path in clone.rglob("*") if "__pycache__" not in path.parts} == before


@pytest.mark.slow
def test_the_study_computes_its_winner_with_the_real_notebooks(tmp_path):
    study = study_beside(make_checkout(tmp_path / "faro", real_notebooks=True))
    done = study.snakemake("--", "winner.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = pd.read_csv(study.folder / "results/traces/simulate/summary.csv")
    assert set(summary["policy"]) == {"FairShare", "AIAD"}
    best = summary.loc[summary["lost_utility"].idxmin(), "policy"]
    assert (study.folder / "winner.txt").read_text() == f"{best}\n"
