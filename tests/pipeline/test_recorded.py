"""Recorded runs are made by rules, `snakemake recorded_<experiment>`."""

import re

from checkouts import ROOT

RULES = (ROOT / "workflow/rules/recorded.smk").read_text()
TABLE = RULES.split("RECORDED_RUNS = {")[1].split("\n}\n")[0]


def test_a_recorded_run_is_made_and_then_written_into_the_pages(checkout):
    done = checkout.snakemake("--dry-run", "--printshellcmds", "--cores", "1", "recorded_gpus")
    assert done.returncode == 0, done.stderr
    ran = re.findall(r"-m (faro_pipeline fetch \w+|studies[\w.]+(?: \w+)?)", done.stdout)
    assert ran == ["faro_pipeline fetch splitwise", "studies.gpus.run", "studies.tables.pages gpus"]


def test_the_commands_of_all_recorded_runs_are_modules_of_studies():
    commands = re.findall(r'"((?:\w+\.)+\w+)[ "]', TABLE)
    assert len(commands) >= 15
    files = [f"studies/{command.replace('.', '/')}.py" for command in commands]
    assert [file for file in files if not (ROOT / file).exists()] == []
