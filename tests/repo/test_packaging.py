"""The lists of dependencies agree, and every dependency is pinned."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions

import pytest
import yaml
from checkouts import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


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
    extras=("pipeline", "solve", "bayes", "figures", "live", "kube", "arena", "llm", "dev"),
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


def test_what_a_pinned_package_needs_is_pinned():
    """Except setuptools, which is no part of the pins before Python 3.12."""
    needed = {
        (canonical(one.metadata["Name"]), canonical(Requirement(line).name))
        for one in distributions()
        if canonical(one.metadata["Name"]) in REQUIREMENTS
        for line in one.requires or []
        if not (mark := Requirement(line).marker) or mark.evaluate({"extra": ""})
    }
    assert [pair for pair in sorted(needed) if pair[1] not in {*REQUIREMENTS, "setuptools"}] == []


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
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {Requirement(line).name.lower() for line in lines if re.match(r"[a-zA-Z]", line)}
    needs = {one.name.lower(): one.metadata["Requires-Python"] for one in distributions()}
    refused = [
        name for name in pinned if needs.get(name) and "3.11.0" not in SpecifierSet(needs[name])
    ]
    assert refused == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the project's wheel alone, without the checkout that it was built from."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, timeout=600)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("the build tool hatchling is neither at hand nor to be had")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("faro_lib-*.whl")
    target = folder / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=600)
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (
            f"recommend --workload {ROOT}/data/example.csv --capacity 12",
            {"caption", "detect", "search", "translate"},
        ),
        ("simulate --policy AIAD --capacity 12 --minutes 3", {"AIAD"}),
    ],
)
def test_a_wheel_that_is_installed_alone_runs_faro(installed, tmp_path, arguments, shown):
    """In an environment with the pinned libraries and without this checkout."""
    alone = {"PYTHONPATH": str(installed), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "faro_ops.cli", *arguments.split()]
    done = subprocess.run(
        command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert shown <= set(done.stdout.split())
