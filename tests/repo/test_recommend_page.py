"""docs/recommend.md: its table of jobs, commands, exit statuses and JSON keys are right."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys

import pytest
from checkouts import ROOT

from faro_lib.workload import Job
from faro_ops import cli
from faro_ops.cli.recommend import OUT_OF_REACH

pytestmark = pytest.mark.usefixtures("coarse_tables")

PAGE = (ROOT / "docs" / "recommend.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| (\S*) ?\|", PAGE, re.MULTILINE)
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


def test_the_table_of_jobs_has_every_column_and_its_default():
    fields = [("job", ""), *((f.name, str(f.default)) for f in dataclasses.fields(Job)[1:])]
    assert [row for row in ROWS if row[0] != "status"] == fields


def test_the_exit_statuses_are_those_of_the_command():
    assert re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE) == ["0", "2", str(OUT_OF_REACH), "130"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:30])
def test_the_options_on_the_page_exist(command, monkeypatch, tmp_path, capsys):
    """The command must fail for the files and servers that do not exist, not for an option."""
    monkeypatch.chdir(tmp_path)
    name, *arguments = shlex.split(command)
    arguments = ["http://127.0.0.1:1" if word.startswith("http") else word for word in arguments]
    assert (name, cli.main(arguments)) == ("faro", 2)
    assert re.search("no such file|no answer from Prometheus", capsys.readouterr().err)


@pytest.mark.slow
def test_the_json_has_the_keys_of_the_page(tmp_path, capsys):
    counts = [f"{day},{minute},a,300" for day in (0, 1) for minute in range(40)]
    (tmp_path / "my.csv").write_text("\n".join(["day,minute,job,requests", *counts]))
    arguments = f"recommend --workload {tmp_path}/my.csv --capacity 3 --curve --json".split()
    assert cli.main(arguments) == 0
    (sentence,) = re.findall(r"^With `--json`.*?\. Progress", PAGE, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", sentence) == list(json.loads(capsys.readouterr().out))


@pytest.mark.slow
def test_the_outputs_on_the_page_are_those_of_its_first_command():
    command = [sys.executable, "-m", "faro_ops.cli", *shlex.split(COMMANDS[0])[1:]]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    shown = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert "\n".join(shown) == told
