"""Imports go one way: between the four places, and between the packages of each.

Imports inside functions count, those for type checkers and paths in strings, too.
"""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from checkouts import ROOT

FOLDERS = {
    "faro_lib": ROOT / "faro_lib",
    "faro_ops": ROOT / "faro_ops",
    "studies": ROOT / "studies",
    "faro_pipeline": ROOT / "workflow" / "faro_pipeline",
}
MAY_IMPORT = {
    "faro_lib": {"faro_lib"},
    "faro_ops": {"faro_lib", "faro_ops"},
    "studies": {"faro_lib", "studies"},
    "faro_pipeline": set(FOLDERS),
}
# These studies run on real replicas or judge what an operator has, so they may import it.
OPERATED = (
    *("studies.live", "studies.adoption", "studies.arena"),
    *("studies.disaggregated.run", "studies.gpus.run"),
)


# In the order of the data flow: a package imports only from packages before it.
ORDER = {
    "faro_lib": [
        *("errors", "files", "registry", "workload", "protocol", "queueing", "forecast"),
        *("utility", "allocate", "sharing", "policies", "control", "simulate", "metrics"),
        *("experiments", "figures"),
    ],
    "faro_ops": [
        *(
            "errors",
            "files",
            "section",
            "log",
            "jobs_table",
            "request_deadline",
            "http",
            "prometheus",
            "free_memory",
        ),
        *("protocol", "run_options", "journal", "recorded_days", "operate", "advise", "cli"),
    ],
}
# The rooms of `faro_ops.operate`, in the same order.
ROOMS = ["memory", "limits", "loop", "rayserve", "kube", "export", "controller"]

HEAVY = {
    *("ray", "pymc", "kubernetes", "cvxpy", "numba", "pandas", "matplotlib", "seaborn"),
    *("snakemake", "papermill"),
}
# What only an operator or the pipeline needs.
NOT_FOR_RESEARCH = {"typer", "rich", "requests", "pydantic", "psutil", "prometheus_client"}


def module_name(place: str, path: Path) -> str:
    """The dotted name of a file of a place: faro_lib.workload for its __init__.py."""
    parts = path.relative_to(FOLDERS[place].parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {
    module_name(place, path): path
    for place, folder in FOLDERS.items()
    for path in sorted(folder.rglob("*.py"))
}
PATH_IN_A_STRING = re.compile(rf"({'|'.join(FOLDERS)})(\.\w+)+(:\w+)?")


def place_of(module: str) -> str:
    return module.split(".")[0]


def package_of(module: str) -> str:
    """The module or package directly below its place; "" for the place itself."""
    return [*module.split("."), ""][1]


def imported_names(code: str, package: str = "") -> Iterator[str]:
    """Dotted names that the code of a module in `package` imports, anywhere in it."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and PATH_IN_A_STRING.fullmatch(str(node.value)):
            yield node.value.replace(":", ".")


def module_of(name: str) -> str:
    """The module of ours that holds a dotted name; "" if none does."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


@cache
def names_imported_by(module: str) -> frozenset[str]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return frozenset(imported_names(path.read_text(), package))


def modules_imported_by(module: str) -> set[str]:
    return {module_of(name) for name in names_imported_by(module)} - {"", module}


def arrows(place: str) -> list[tuple[str, str]]:
    """(module, module that it imports) for all modules of a place."""
    modules = [module for module in MODULES if place_of(module) == place]
    return [(module, other) for module in modules for other in sorted(modules_imported_by(module))]


@pytest.mark.parametrize("place", FOLDERS)
def test_a_place_imports_only_what_its_reader_has(place):
    wrong = [
        f"{module} imports {other}"
        for module, other in arrows(place)
        if place_of(other) not in MAY_IMPORT[place]
        if not (place_of(other) == "faro_ops" and module.startswith(OPERATED))
    ]
    assert wrong == []


@pytest.mark.parametrize("place", ORDER)
def test_a_package_imports_only_from_packages_before_it(place):
    order = ["", *ORDER[place]]
    wrong = [
        f"{module} imports {other}"
        for module, other in arrows(place)
        if place_of(other) == place
        if order.index(package_of(other)) > order.index(package_of(module))
    ]
    assert wrong == []


def test_advice_and_operation_do_not_know_each_other():
    rooms = {"advise", "operate"}
    wrong = [
        f"{module} imports {other}"
        for module, other in arrows("faro_ops")
        if {package_of(module), package_of(other)} == rooms
    ]
    assert wrong == []


def room_of(module: str) -> str:
    """The room of the operator's loop that has the module; "" for a common module of all rooms."""
    room = [*module.split("."), "", ""][2]
    return room if room in ROOMS else ""


def test_a_room_of_the_operator_imports_only_from_rooms_before_it():
    order = ["", *ROOMS]
    wrong = [
        f"{module} imports {other}"
        for module, other in arrows("faro_ops")
        if package_of(module) == package_of(other) == "operate"
        if order.index(room_of(other)) > order.index(room_of(module))
    ]
    assert wrong == []


@pytest.mark.parametrize("place", ORDER)
def test_the_order_has_every_package(place):
    packages = {package_of(module) for module in MODULES if place_of(module) == place}
    assert packages <= {"", *ORDER[place]}


@pytest.mark.parametrize("place", ["faro_lib", "faro_ops", "studies"])
def test_no_module_imports_itself_through_others(place):
    graph = TopologicalSorter()
    for module, other in arrows(place):
        graph.add(module, other)
    graph.prepare()  # raises CycleError, which names the modules


def code_of(notebook: Path) -> str:
    """The code cells of a notebook, without lines for IPython."""
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.sub(r"^[%!].*", "", code, flags=re.MULTILINE)


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_only_the_library_and_studies(notebook):
    found = {place_of(module_of(name)) for name in imported_names(code_of(notebook))} - {""}
    assert found
    assert found <= {"faro_lib", "studies"}


def test_an_import_is_seen_wherever_it_stands():
    code = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from faro_lib.errors import message_of\n"
        "def f():\n    from faro_ops import cli\n    import_module('studies.live')\n"
        "    from .workload import jobs\n"
        "MODEL = 'faro_ops.operate.rayserve.models:Emulated'\n"
    )
    modules = {module_of(name) for name in imported_names(code, "faro_lib")}
    assert modules - {""} == {
        "faro_lib.errors",
        "faro_ops.cli",
        "studies.live",
        "faro_lib.workload.jobs",
        "faro_ops.operate.rayserve.models",
    }


def loaded_by(statement: str) -> set[str]:
    """The modules in memory after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_simulator_loads_at_most_40_of_our_modules_and_none_of_an_operator():
    loaded = loaded_by("import faro_lib.simulate") & set(MODULES)
    assert {place_of(module) for module in loaded} == {"faro_lib"}
    assert len(loaded) <= 40, sorted(loaded)


def test_a_simulated_pool_needs_nothing_of_faro_ops_but_the_commands(tmp_path):
    jobs, counts = tmp_path / "jobs.yaml", tmp_path / "counts.csv"
    jobs.write_text("\n".join(f"- {{job: {j}, pool: p, models_per_replica: 2}}" for j in "ab"))
    counts.write_text("minute,job,requests\n0,a,60\n0,b,60\n")
    tables = ["--workload", str(counts), "--jobs", str(jobs), "--capacity", "4"]
    options = ["simulate", *tables, "--policy", "FairShare"]
    command = f"from faro_ops.cli import main\nassert main({options}) == 0"
    loaded = loaded_by(command)
    assert "faro_lib.simulate.pools" in loaded
    assert {one for one in loaded if package_of(one) in ("advise", "operate", "journal")} == set()


@pytest.mark.parametrize(
    "module",
    ["faro_lib", "faro_pipeline.settings", "faro_lib.workload", "faro_pipeline", "faro_ops.cli"],
)
def test_importing_it_loads_nothing_heavy(module):
    assert {place_of(name) for name in loaded_by(f"import {module}")}.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("pymc", "studies.bayes"),
        ("ray", "faro_ops.operate.rayserve"),
        ("kubernetes", "faro_ops.operate.kube"),
    ],
)
def test_a_heavy_system_is_imported_in_one_package_only(package, home):
    importing = {
        module.rpartition(".")[0]
        for module in MODULES
        if place_of(module) in ORDER or package == "pymc"
        if package in {name.split(".")[0] for name in names_imported_by(module)}
    }
    assert importing == {home}


def test_the_library_imports_nothing_that_only_an_operator_needs():
    imported = {
        name.split(".")[0]
        for module in MODULES
        if place_of(module) == "faro_lib"
        for name in names_imported_by(module)
    }
    assert imported.isdisjoint(NOT_FOR_RESEARCH)


def public_names(path: Path) -> list[str]:
    """Functions and classes at the top of a module."""
    nodes = ast.parse(path.read_text()).body
    named = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in named if not name.startswith("_")]


@pytest.mark.parametrize("place", ORDER)
def test_no_name_means_two_things(place):
    """Commands do not count: a command is named after what it runs."""
    homes = defaultdict(set)
    for module, path in MODULES.items():
        is_command = module.startswith("faro_ops.cli")
        is_private = path.name.startswith("_")
        if place_of(module) == place and not is_command and not is_private:
            for name in public_names(path):
                homes[name].add(module)
    shared = {name: sorted(places) for name, places in homes.items() if len(places) > 1}
    assert shared.keys() <= {"main", "register"}, shared


# --- decisions of the project, written down in CONTRIBUTING.md ------------------------------------


def lines_of_python() -> Iterator[tuple[str, str]]:
    """(file:line, text) of all Python of the repository, code cells of notebooks among it."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in (".py", ".ipynb", ".smk") and path.exists():
            text = code_of(path) if path.suffix == ".ipynb" else path.read_text()
            for number, line in enumerate(text.splitlines(), 1):
                yield f"{name}:{number}", line


def test_no_line_of_python_is_wider_than_100_columns_and_none_of_a_notebook_wider_than_88():
    """88 columns are what a page of the site shows of a cell at a width of 1280 px."""
    limit = {True: 88, False: 100}  # by whether it is a notebook
    wide = [place for place, line in lines_of_python() if len(line) > limit[".ipynb:" in place]]
    assert wide == []


def test_formatting_is_switched_off_at_most_ten_times():
    switch = re.compile(r"# fmt: (skip|off)\b")
    assert len([place for place, line in lines_of_python() if switch.search(line)]) <= 10
