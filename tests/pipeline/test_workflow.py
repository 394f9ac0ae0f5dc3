"""The workflow as Snakemake's users meet it: both Snakefiles, the catalog, and no packages of ours.

With `--software-deployment-method conda`, only the environments of the rules have the packages of
the library.
"""

import re
import sys

import pytest
import yaml
from checkouts import ROOT, make_checkout
from faro_pipeline import derived
from faro_pipeline.derived import attributes, training_days
from faro_pipeline.settings import load
from faro_pipeline.start import NEEDED

from faro_lib import workload
from faro_lib.workload.jobs import TABLES
from faro_ops.advise.sources import request_log

NOT_CHECKED = "config: only types and ranges are checked, because "
LEARNING = ("--config", "synthetic={days: 3}", "scale={curve: [20]}", "days={judged: [2]}")


def hide_packages() -> None:
    """Hide what the check of the settings imports, in Snakemake's process."""
    for name in NEEDED:
        for module in [loaded for loaded in sys.modules if loaded.split(".")[0] == name]:
            del sys.modules[module]
        sys.modules[name] = None  # type: ignore[assignment]


def plan(done) -> list[str]:
    """The table of jobs of a dry run."""
    assert done.returncode == 0, done.stderr
    return re.findall(r"^\w+ +\d+$", done.stdout + done.stderr, re.MULTILINE)


def test_both_snakefiles_run_all_stages(checkout):
    at_the_top = checkout.would_run()
    assert "report" in at_the_top
    assert checkout.would_run("--snakefile", "workflow/Snakefile") == at_the_top


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
def test_the_linter_of_snakemake_finds_nothing_where_no_package_of_ours_is(snakefile, checkout):
    done = checkout.snakemake("--lint", "--snakefile", snakefile, prepare=hide_packages)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("config: ")]
    assert said == [f"{NOT_CHECKED}{', '.join(NEEDED)} are not installed here"]


@pytest.mark.parametrize("settings", [(), LEARNING], ids=["defaults", "learning"])
def test_without_packages_the_same_jobs_are_planned(settings, checkout):
    with_packages = checkout.snakemake("--dry-run", *settings)
    without = checkout.snakemake("--dry-run", *settings, prepare=hide_packages)
    assert NOT_CHECKED not in with_packages.stderr
    assert NOT_CHECKED in without.stderr
    assert plan(without) == plan(with_packages)


@pytest.mark.parametrize("prepare", [None, hide_packages], ids=["packages", "none"])
def test_a_wrong_setting_is_one_line_and_status_2_with_and_without_packages(prepare, checkout):
    done = checkout.snakemake("--dry-run", "--config", "trials=0", prepare=prepare)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("config: ")]
    assert len([line for line in lines if not line.startswith(NOT_CHECKED)]) == 1
    assert "trials" in lines[-1]


@pytest.mark.parametrize("wrong", ["trails=5", "scale={curv: [20]}", "synthetic={days: two}"])
def test_without_packages_the_schema_refuses_unknown_names_and_wrong_types(wrong, checkout):
    done = checkout.snakemake("--dry-run", "--config", wrong, prepare=hide_packages)
    assert done.returncode == 2
    assert re.findall(r"curv|trails|two", done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_the_report_of_snakemake_has_a_description_categories_and_captions(tmp_path):
    checkout = make_checkout(tmp_path)
    small = ("--config", "capacities=[11]", "synthetic={days: 1}", "trials=1", "backend=none")
    target = "results/synthetic/figures/captions-queueing.json"
    done = checkout.snakemake(*small, "--", target)
    assert done.returncode == 0, done.stderr
    caption = checkout.folder / "results/synthetic/figures/captions/relaxations.rst"
    assert "A caption." in caption.read_text()
    assert "results/synthetic/queueing/relaxed" in caption.read_text().replace("\\", "")
    done = checkout.snakemake(*small, "--report", "page.html", "--", target)
    assert done.returncode == 0, done.stderr
    page = (checkout.folder / "page.html").read_text()
    assert "SLO-aware autoscaler" in page
    assert "Workload and model" in page
    assert "<strong>A title.</strong> A caption." in page


def test_the_command_of_a_figure_is_the_same_in_each_run(tmp_path):
    """A parameter that differs from run to run would make its rule run again each time."""
    checkout = make_checkout(tmp_path)
    entries = checkout.folder / "data" / "arena"
    entries.mkdir(parents=True, exist_ok=True)
    (entries / "Mine.json").write_text("{}")
    target = "results/synthetic/figures/captions-arena.json"
    done = checkout.snakemake("--dry-run", "--printshellcmds", "--", target)
    said = done.stdout + done.stderr
    (command,) = re.findall(r"faro_pipeline draw studies.figures.arena .*", said)
    assert " data/arena/Mine.json " in command
    assert "runtime-cache" not in command


def test_every_stage_with_figures_has_one_category_in_the_report_of_snakemake():
    text = (ROOT / "workflow" / "rules" / "figures.smk").read_text()
    block = re.search(r"^CATEGORIES = \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE)[1]
    listed = re.findall(r'"([a-z]+)"', block)
    rules = (ROOT / "workflow" / "rules").glob("*.smk")
    drawn = {
        name for path in rules for name in re.findall(r'DRAWINGS\["(\w+)"\] =', path.read_text())
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == drawn


def test_without_packages_the_days_of_a_csv_are_counted(tmp_path):
    def days(header, *rows):
        table = tmp_path / "mine.csv"
        table.write_text("\n".join([header, *rows]))
        return training_days(attributes({"workload": str(table)}))

    assert days("minute,job,requests,day", "0,a,5,1", "0,a,5,2", "1,a,5,2", "0,a,5,7") == 2
    assert days("minute,job,requests", "0,a,5", "1,a,5") == 0
    with pytest.raises(ValueError, match="its days cannot be counted without pandas"):
        days("time,job,requests", "2026-01-01T00:00:00Z,a,5")


def test_the_names_of_the_workloads_are_those_of_the_library():
    assert derived.SYNTHETIC == workload.SYNTHETIC
    assert derived.PUBLISHED == workload.PUBLISHED
    assert set(derived.ENDINGS) == {*TABLES, *request_log.ENDINGS}


def test_the_catalog_finds_what_it_looks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"]["conda"] is True
    assert usage["mandatory-flags"]["flags"] == []
    assert "Snakemake workflow" in (ROOT / "README.md").read_text()
    assert (ROOT / "config" / "README.md").read_text().startswith("# Configuration\n")


def test_the_test_configuration_is_accepted_and_small():
    small = load(yaml.safe_load((ROOT / ".test" / "config.yaml").read_text()))
    assert small.synthetic.days == 1
    assert small.results == ".test/results"


def test_the_readme_of_the_settings_names_existing_files():
    text = (ROOT / "config" / "README.md").read_text()
    named = set(re.findall(r"`([\w-]+\.yaml)`", text))
    assert named == {path.name for path in (ROOT / "config").glob("*.yaml")}
