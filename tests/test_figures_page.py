"""docs/figures.md: every figure of the pipeline stands there, with the notebook that draws it, and can be asked for alone."""

import json
import re
from pathlib import Path

import pytest
from checkouts import ROOT

PAGE = (ROOT / "docs" / "figures.md").read_text()
NOTEBOOK_OF = dict(re.findall(r"^\| `(fig\w+)` \|.*\| `(\d\d_\w+)` \|", PAGE, re.MULTILINE))


@pytest.fixture(scope="module")
def drawn(checkout):
    """Figure -> notebook, as the rules declare them."""
    curve = ["--config", "workload=synthetic", "scale={curve: [20]}"]
    # Runs on a Kubernetes node are drawn where there are any.
    (checkout.folder / "results" / "synthetic" / "live" / "kubernetes" / "e2e").mkdir(parents=True, exist_ok=True)
    told = checkout.snakemake("--configfile", "config/full.yaml", *curve, "--summary")
    assert told.returncode == 0, told.stderr
    files = [(Path(file), rule) for file, _, rule, *_ in (line.split("\t") for line in told.stdout.splitlines()[1:])]
    notebook = {rule: file.stem for file, rule in files if file.suffix == ".ipynb"}
    return {file.stem: notebook[rule] for file, rule in files if file.suffix == ".pdf"}


def test_every_figure_stands_on_the_page_with_its_notebook(drawn):
    assert drawn == NOTEBOOK_OF


def test_a_stage_declares_every_figure_that_its_notebook_draws(drawn):
    named = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        code = "".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        named |= dict.fromkeys(re.findall(r"\"(fig\d\w+)\"", code), path.stem)
    assert named == drawn


def test_a_figure_alone_needs_only_the_stages_before_it(checkout):
    target = "results/synthetic/figures/fig06_relaxations.pdf"
    assert set(checkout.would_run("--", target)) == {"traces", "queueing"}


def test_every_example_of_the_page_is_a_target(checkout):
    (checkout.folder / "data").mkdir(exist_ok=True)
    for name in ("example.csv", "example-jobs.csv"):
        (checkout.folder / "data" / name).write_text((ROOT / "data" / name).read_text())
    examples = re.findall(r"^snakemake --cores 2 (.*)$", PAGE, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        assert checkout.would_run(*example.split()), example
