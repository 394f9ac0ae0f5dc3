"""What stands in pages is what the recorded tables give, and each table of numbers has a source."""

import re

import pytest
from checkouts import ROOT

from studies.tables.pages import (
    WRITTEN,
    Part,
    Picture,
    declaring,
    main,
    shown,
    text_of,
    with_part,
)
from studies.tables.unrecorded import every_table, pages, tables

DECLARED = list(declaring())
PARTS = [(module, part) for module, parts, _ in DECLARED for part in parts]
PICTURES = [picture for _, _, pictures in DECLARED for picture in pictures]
FOUND = every_table()
TABLE = "| a | b |\n| --- | --- |\n"


def name_of(value: object) -> str:
    return f"{value.page}-{value.name}" if isinstance(value, Part) else "by"


@pytest.mark.parametrize(("module", "part"), PARTS, ids=name_of)
def test_a_part_of_a_page_is_what_its_recorded_tables_give(module, part):
    page = (ROOT / part.page).read_text()
    command = f"python -m studies.tables.pages {module.split('/')[-2]}"
    assert shown(page, module, part.name) == text_of(part), command


def test_every_part_that_a_page_marks_is_declared_once():
    marked = [
        (page.relative_to(ROOT).as_posix(), name, module)
        for page in pages()
        for name, module in WRITTEN.findall(page.read_text())
    ]
    assert sorted(marked) == sorted((part.page, part.name, module) for module, part in PARTS)


@pytest.mark.parametrize("declared", [*(part for _, part in PARTS), *PICTURES], ids=name_of)
def test_what_is_declared_names_recorded_files(declared: Part | Picture):
    assert declared.files
    assert all((ROOT / file).exists() for file in declared.files)


def test_a_picture_that_is_declared_is_there():
    assert all((ROOT / picture.path).exists() for picture in PICTURES)


def test_writing_replaces_one_part_and_leaves_the_rest():
    comment = "<!-- t: studies/x/tables.py writes this -->\n"
    page = f"before\n{comment}\nold\n\n<!-- end of table -->\nafter"
    assert with_part(page, "studies/x/tables.py", "t", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="0 times"):
        shown(page, "studies/x/tables.py", "other")


def test_an_experiment_that_is_not_there_is_one_line_with_those_that_are(capsys):
    assert main("shoring") == 2
    assert capsys.readouterr().err.startswith("shoring: no such experiment; accepted: arena, ")


def test_a_table_of_numbers_is_declared_or_says_how_it_was_measured():
    silent = [table for table in FOUND if not table.module and not table.command]
    assert not silent, "write `<!-- not recorded: COMMAND -->` above it, or record its numbers"


@pytest.mark.parametrize("command", sorted({table.command for table in FOUND if table.command}))
def test_a_command_that_measured_a_table_exists(command):
    for script in re.findall(r"`python ([\w/]+\.py)", command):
        assert (ROOT / script).exists()
    for module in re.findall(r"`python -m ([\w.]+)", command):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()
    for target in re.findall(r"`make (\w+)", command):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
    for config in re.findall(r"CONFIG=([\w/.]+)", command):
        assert (ROOT / config).exists()
    assert command.startswith(("`", "nothing", "the benchmark files")), "a command, or why not"


def test_a_table_without_a_module_or_a_command_is_found():
    text = "\n".join(
        [
            "# Page",
            "<!-- not recorded: `make fuzz` -->",
            f"\n{TABLE}| x | 1.5 |\n| y | 2.5 % |\n\nText",
            f"\n{TABLE}| x | 3 ms |\n| y | **4** |",
            f"\n{TABLE}| x | text |\n",
            "<!-- t: studies/x/tables.py writes this -->",
            f"\n{TABLE}| x | 3 |\n| y | 4 |\n",
            "<!-- end of table -->",
        ]
    )
    found = list(tables("page.md", text))
    assert [(one.numbers, one.module, one.command) for one in found] == [
        (True, None, "`make fuzz`"),
        (True, None, None),
        (False, None, None),
        (True, "studies/x/tables.py", None),
    ]
