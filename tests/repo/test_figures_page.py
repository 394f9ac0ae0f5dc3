"""docs/comparison.md lists every figure of the pipeline with its notebook, and each is a target."""

import re
from pathlib import Path

import pytest
from checkouts import ROOT

PAGE = (ROOT / "docs" / "comparison.md").read_text()
NOTEBOOK_OF = dict(re.findall(r"^\| `(\w+)` \|.*\| `(\d\d_\w+)` \|", PAGE, re.MULTILINE))


@pytest.fixture(scope="module")
def rules(checkout):
    """File -> rule, for every file of the largest configuration."""
    curve = ["--config", "workload=synthetic", "scale={curve: [20]}", "llm={capacities: [12]}"]
    # Their figures exist only where the recorded results are.
    for name in ("recorded-kubernetes", "arena"):
        (checkout.folder / "data" / name).mkdir(parents=True, exist_ok=True)
    done = checkout.snakemake("--configfile", "config/full.yaml", *curve, "--summary")
    assert done.returncode == 0, done.stderr
    return {
        Path(file): rule
        for file, _, rule, *_ in (line.split("\t") for line in done.stdout.splitlines()[1:])
    }


@pytest.fixture(scope="module")
def stages(rules):
    """Figure -> stage whose tables it is drawn from."""
    return {
        file.stem: rule.removeprefix("draw_")
        for file, rule in rules.items()
        if file.suffix == ".pdf"
    }


def test_every_figure_is_on_the_page_with_its_notebook(rules, stages):
    notebooks = {
        rule: file.stem.partition("-")[0] for file, rule in rules.items() if file.suffix == ".ipynb"
    }
    notebooks["comparison"] = notebooks["figures"]
    assert {figure: notebooks[stage] for figure, stage in stages.items()} == NOTEBOOK_OF


def test_a_stage_declares_every_figure_that_its_module_draws(stages):
    named = {}
    for path in ROOT.glob("studies/*/figures.py"):
        drawn = re.findall(r"\"(\w+)\"(?:: |\] = )Drawing\(", path.read_text())
        named |= dict.fromkeys(drawn, path.parent.name)
    assert named == stages


def test_a_figure_alone_needs_only_the_stages_before_it(checkout):
    target = "results/synthetic/figures/relaxations.pdf"
    assert set(checkout.would_run("--", target)) == {"traces", "queueing", "draw_queueing"}


@pytest.mark.slow
def test_every_example_of_the_page_is_a_target(checkout):
    (checkout.folder / "data").mkdir(exist_ok=True)
    for name in ("example.csv", "example-jobs.csv"):
        (checkout.folder / "data" / name).write_text((ROOT / "data" / name).read_text())
    examples = re.findall(r"^snakemake --cores 2 (.*)$", PAGE, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        assert checkout.would_run(*example.split()), example
