"""The package: light imports in one direction, and three lists of dependencies that agree."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from faro_pipeline.dependencies import imported_by

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "faro_lib"

# In the order of the data flow: a module imports only from its own package and from earlier entries.
ORDER = [
    *(
        "errors",
        "files",
        "memory",
        "registry",
        "http",
        "workload",
        "config",
        "queueing",
        "forecast",
        "bayes",
        "utility",
    ),
    *(
        "allocate",
        "policies",
        "control",
        "simulate",
        "calibrate",
        "rayserve",
        "kube",
        "metrics",
        "experiments",
        "arena",
        "figures",
    ),
    *("recommend", "pipeline", "cli"),
]
HEAVY = (
    "ray",
    "pymc",
    "kubernetes",
    "cvxpy",
    "numba",
    "pandas",
    "matplotlib",
    "seaborn",
    "snakemake",
    "papermill",
)


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "faro_lib",
        "faro_pipeline.settings",
        "faro_lib.workload",
        "faro_pipeline",
        "faro_ops.cli.app",
    ],
)
def test_importing_it_loads_nothing_heavy(module):
    assert loaded_by(f"import {module}").isdisjoint(HEAVY)


def modules() -> list[Path]:
    return sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


def concept(path: Path) -> str:
    """The row of the table that a file belongs to: its module or package directly under faro_lib."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_module_imports_only_from_modules_before_it(path):
    place = ORDER.index(concept(path))
    for other in imported_by(path, ROOT):
        if other != LIBRARY / "__init__.py":
            assert ORDER.index(concept(other)) <= place, (
                f"{path.name} imports {other.relative_to(ROOT)}"
            )


def test_no_module_imports_itself_through_others():
    sorter = TopologicalSorter({path: imported_by(path, ROOT) for path in modules()})
    sorter.prepare()  # raises CycleError, which names the modules


def definitions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    text = node.body[0] if ast.get_docstring(node) else None
    return node.end_lineno - node.lineno + 1 - (text.end_lineno - text.lineno + 1 if text else 0)


BESIDE = sorted((ROOT / "studies").rglob("*.py"))  # what the notebooks import besides the library


@pytest.mark.parametrize(
    "path", [*modules(), *BESIDE], ids=lambda path: str(path.relative_to(ROOT))
)
def test_modules_are_short_and_a_long_function_says_why_it_is_one(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 350
    for node in definitions(path):
        if not isinstance(node, ast.ClassDef) and code_lines(node) > 60:
            assert "One " in "".join(lines[node.lineno : node.end_lineno]), (
                f"{node.name} has {code_lines(node)} lines"
            )


@pytest.mark.parametrize("path", BESIDE, ids=lambda path: path.stem)
def test_the_examples_in_a_module_beside_the_notebooks_hold(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_library_imports_nothing_from_the_notebooks():
    assert not [
        path
        for path in modules()
        if re.search(r"^\s*(from|import) notebooks\b", path.read_text(), re.MULTILINE)
    ]


def test_no_name_means_two_things():
    """Public functions and classes. A command is named after what it runs; every stage of the figures has a `draw`."""
    homes = defaultdict(set)
    for path in modules():
        if concept(path) != "cli" and not path.name.startswith("_"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith(
                    "_"
                ):
                    homes[node.name].add(str(path.relative_to(LIBRARY)))
    shared = {name: sorted(places) for name, places in homes.items() if len(places) > 1}
    assert shared.keys() <= {"main", "draw", "register"}, shared


@pytest.mark.parametrize(
    ("package", "home"), [("pymc", "bayes"), ("ray", "rayserve"), ("kubernetes", "kube")]
)
def test_a_heavy_system_is_imported_in_one_module_only(package, home):
    importing = re.compile(rf"^\s*(import|from) {package}\b", re.MULTILINE)
    assert {concept(path) for path in modules() if importing.search(path.read_text())} <= {home}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    return {
        canonical(name): version for name, _, version in (line.partition("==") for line in lines)
    }


REQUIREMENTS = pins((ROOT / "requirements.txt").read_text().splitlines())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def asked_for(
    extras=("pipeline", "solve", "bayes", "figures", "live", "kube", "arena", "dev"),
) -> set[str]:
    """Names of pyproject.toml: the core's and these extras'."""
    wanted = [
        *PROJECT["dependencies"],
        *(name for extra in extras for name in PROJECT["optional-dependencies"][extra]),
    ]
    return {canonical(re.split(r"[\[<>=~! ]", name)[0]) for name in wanted} - {"faro-lib"}


def test_every_requirement_is_pinned_to_one_version():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)


def test_every_dependency_of_the_project_is_pinned():
    assert asked_for() <= set(REQUIREMENTS)


def test_the_simulation_core_depends_on_neither_ray_nor_pymc_nor_kubernetes():
    assert asked_for(extras=()).isdisjoint({"ray", "pymc", "kubernetes"})


def test_the_conda_environment_has_the_same_pins():
    by_pip = next(entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict))
    by_conda = pins(
        re.sub(r"(?<!=)=(?!=)", "==", entry)
        for entry in ENVIRONMENT
        if isinstance(entry, str) and "=" in entry
    )
    by_conda.pop("python")
    assert by_conda, "a core that conda solves"
    assert by_conda | pins(by_pip) == REQUIREMENTS
    assert by_conda.keys().isdisjoint(pins(by_pip))


def test_no_package_index_is_named():
    for name in ("requirements.txt", "environment.yml", "pyproject.toml", "Makefile", ".ci/run"):
        assert "index-url" not in (ROOT / name).read_text()


def test_every_pinned_package_installs_on_the_oldest_python_that_the_project_accepts():
    from importlib.metadata import distributions

    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {Requirement(line).name.lower() for line in lines if re.match(r"[a-zA-Z]", line)}
    needs = {one.name.lower(): one.metadata["Requires-Python"] for one in distributions()}
    refused = [
        name for name in pinned if needs.get(name) and "3.11.0" not in SpecifierSet(needs[name])
    ]
    assert refused == []
