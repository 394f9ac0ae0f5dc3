"""Every table of numbers in README.md and docs/ has a recorded table or a command behind it."""

import re
import runpy

import pytest
from checkouts import ROOT

UNRECORDED = runpy.run_path(str(ROOT / "docs/unrecorded.py"))
FOUND = UNRECORDED["every_table"]()


def test_a_table_of_numbers_is_written_by_a_script_or_says_how_it_was_measured():
    silent = [table for table in FOUND if not table.script and not table.command]
    assert not silent, "write `<!-- not recorded: COMMAND -->` above it, or record its numbers"


def test_the_list_of_what_is_not_recorded_is_complete():
    page = UNRECORDED["PAGE"].read_text()
    assert UNRECORDED["with_list"](page) == page, "run python docs/unrecorded.py"


@pytest.mark.parametrize("script", sorted({table.script for table in FOUND if table.script}))
def test_a_script_that_writes_a_table_reads_recorded_tables(script):
    text = (ROOT / script).read_text()
    kept = re.findall(r'"((?:data|faro_lib/workload)/[\w./-]+)"', text)
    assert kept, f"{script} names no recorded file"
    assert all((ROOT / path).exists() for path in kept)


@pytest.mark.parametrize("command", sorted({table.command for table in FOUND if table.command}))
def test_a_command_that_measured_a_table_exists(command):
    for script in re.findall(r"`python ([\w/]+\.py)", command):
        assert (ROOT / script).exists()
    for target in re.findall(r"`make (\w+)", command):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
    for config in re.findall(r"CONFIG=([\w/.]+)", command):
        assert (ROOT / config).exists()
    assert command.startswith(("`", "nothing", "the benchmark files")), "a command, or why not"


def test_a_table_without_a_script_or_a_command_is_found():
    text = "\n".join(
        [
            "# Page",
            "<!-- not recorded: `make fuzz` -->",
            "",
            "| a | b |",
            "| --- | --- |",
            "| x | 1.5 |",
            "| y | 2.5 % |",
            "",
            "Text",
            "",
            "| a | b |",
            "| --- | --- |",
            "| x | 3 ms |",
            "| y | **4** |",
            "",
            "| a | b |",
            "| --- | --- |",
            "| x | text |",
            "",
            "<!-- t: docs/twins.py writes this table -->",
            "",
            "| a | b |",
            "| --- | --- |",
            "| x | 3 |",
            "| y | 4 |",
            "",
            UNRECORDED["marked"].END,
        ]
    )
    found = list(UNRECORDED["tables"]("page.md", text))
    assert [(one.numbers, one.script, one.command) for one in found] == [
        (True, None, "`make fuzz`"),
        (True, None, None),
        (False, None, None),
        (True, "docs/twins.py", None),
    ]
