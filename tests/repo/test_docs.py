"""The documentation names only files, links, targets of make and flags of `faro` that exist."""

import re
import subprocess
import textwrap

import pytest
import yaml
from checkouts import ROOT
from live_things import FakeRay
from typer.main import get_command

from faro_ops import cli
from faro_ops.cli.app import app
from faro_ops.operate.rayserve.replica import load_model
from faro_ops.protocol import REASONS

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
# Files that the pages tell readers to make.
EXAMPLES = ("out.ipynb", "my_", "NN_", "notebooks/NN_", "cli/x.py", "x/cluster.py")
EXAMPLES += ("studies/figures/name.py", "workflow/rules/name.smk")
pytestmark = pytest.mark.skipif(not FILES, reason="not a git checkout")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page):
    text = page.read_text()
    named = re.findall(r"(?<![\w./-])[\w./-]*\w\.(?:py|smk|ipynb|sh)\b", text)
    missing = [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in FILES)]
    assert [name for name in missing if not name.startswith(EXAMPLES)] == []
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    assert [
        link for link in links if not any((base / link).exists() for base in (page.parent, ROOT))
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_that_a_page_shows_exist(page):
    shown = "\n".join(
        re.findall(r"^    .*|`[^`\n]+`", page.read_text().replace("\\\n", " "), re.MULTILINE)
    )
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z][\w-]*)", shown)) <= {*targets, "kubeconfig"}
    for name, command in get_command(app).commands.items():
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        calls = "\n".join(re.findall(rf"\bfaro {name}\b([^`|&#\n]*)", shown))
        assert set(re.findall(r"(?<!\S)--[a-z][\w-]*", calls)) <= options, name


def test_the_page_about_live_runs_deploys_the_model_and_the_table_that_it_shows(
    tmp_path, monkeypatch, capsys
):
    page = (ROOT / "docs/live.md").read_text()
    fenced = {
        kind: re.search(rf" *```{kind}\n(.*?\n) *```", page, re.DOTALL)[1]
        for kind in ("yaml", "python")
    }
    table, code = map(textwrap.dedent, fenced.values())
    (tmp_path / "jobs.yaml").write_text(table)
    (tmp_path / "my_models.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with FakeRay({}).served() as address:
        assert cli.main(["deploy", "--jobs", "jobs.yaml", "--address", address, "--dry-run"]) == 0
    applications = yaml.safe_load(capsys.readouterr().out)["applications"]
    assert [one["name"] for one in applications] == ["faro-statistics", "resnet", "bert"]
    assert callable(load_model(applications[1]["args"]["import_path"])())


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_what_follows_a_blank_line_in_a_list_is_indented_by_four_spaces(page):
    """The site takes anything less for text after the list.

    It takes an item without a blank line before it for more of the text above.
    """
    lines = page.read_text().splitlines()
    listed = False
    nested = False
    fenced = False
    wrong = []
    for before, line in zip(["", *lines], lines):
        fenced ^= line.lstrip().startswith("```")
        item = bool(re.match(r"\d+\. |- ", line))
        listed = item or (listed and (not line or line.startswith(" ")))
        if (
            listed
            and not fenced
            and ((not before and re.match(r" {1,3}\S", line)) or (item and nested and before))
        ):
            wrong.append(line)
        nested = listed and not item and (nested or (not before and line.startswith("    ")))
    assert not wrong


def test_the_page_about_live_runs_explains_each_reason():
    table = (ROOT / "docs/live.md").read_text().split("### Reasons")[1].split("## ")[0]
    named = " ".join(row.split("|")[1] for row in table.splitlines() if "|" in row)
    assert set(re.findall(r"`([a-z-]+)`", named)) == set(REASONS)
