"""The library installs with its own dependencies alone: no command line, HTTP client or schema."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from checkouts import ROOT
from packaging.requirements import Requirement

CORE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
NOT_NEEDED = ("typer", "requests", "pydantic")


def with_dependencies(requirements: list[str]) -> dict[str, Distribution]:
    """The installed distributions that fulfil the requirements, and those that they need."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and name not in found:
            found[name] = distribution(name)
            waiting += [Requirement(text) for text in found[name].requires or []]
    return found


def link_into(folder: Path, installed: Distribution) -> None:
    """Link the distribution's modules, packages and shared libraries into the folder."""
    names = {file.parts[0] for file in installed.files or []}
    for name in names - {"..", "__pycache__"}:
        (folder / name).symlink_to(Path(str(installed.locate_file(name))))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Site packages with the project's wheel and the dependencies of its core."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--no-deps", "-w", str(folder), str(ROOT)]
    built = subprocess.run(build, capture_output=True, text=True, timeout=600)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("the build tool hatchling is neither at hand nor to be had")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("faro_lib-*.whl")
    install = [*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=600)
    for installed in with_dependencies(CORE).values():
        link_into(folder / "site", installed)
    return folder / "site"


@pytest.mark.slow
def test_the_simulator_is_imported_with_the_dependencies_of_the_core(site, tmp_path):
    code = "import sys, faro_lib.simulate; print(faro_lib.__file__, *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],  # -S: without the packages of this environment
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    path, *modules = done.stdout.split()
    assert path == str(site / "faro_lib" / "__init__.py")
    assert not {module.split(".")[0] for module in modules} & set(NOT_NEEDED)
    assert not [name for name in NOT_NEEDED if (site / name).exists()]


@pytest.mark.slow
def test_the_wheel_has_the_packages_that_need_no_checkout(site):
    assert {path.name for path in site.glob("faro_*") if path.suffix == ""} == {
        "faro_lib",
        "faro_ops",
    }
    assert not (site / "studies").exists()
