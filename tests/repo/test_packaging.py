"""The lists of dependencies agree; every dependency, action and image is pinned."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

import pytest
import yaml
from checkouts import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

LOCKS = sorted([ROOT / "requirements.txt", *ROOT.glob("envs/*/*.txt")])


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines) -> dict[str, str]:
    """Name -> version; an extra is no part of the name."""
    return {
        canonical(re.sub(r"\[.*\]", "", name)): version
        for name, _, version in (line.partition("==") for line in lines)
    }


def locks(path) -> list[tuple[str, list[str]]]:
    """(NAME==VERSION, what follows it) of each package in a lock file."""
    lines = path.read_text().replace("\\\n", " ").splitlines()
    words = [line.replace(", ", ",").split() for line in lines if not line.startswith("#")]
    return [(first, rest) for first, *rest in words]


REQUIREMENTS = pins(package for package, _ in locks(ROOT / "requirements.txt"))
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


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_file_has_one_version_of_each_package_and_the_hashes_of_its_files(path):
    packages = locks(path)
    assert packages
    for package, hashes in packages:
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.+!]+", package, re.ASCII)
        assert hashes, f"{package}: pip would take any file of that name"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes)
    names = pins(package for package, _ in packages)
    assert len(names) == len(packages)


def test_the_image_has_the_versions_that_are_tested():
    image = pins(package for package, _ in locks(ROOT / "envs/image/requirements.txt"))
    assert image.items() <= REQUIREMENTS.items()
    assert asked_for(extras=("live", "kube", "ops")) <= set(image)


INSTALLERS = (
    *("Makefile", "cluster/Dockerfile", "cluster/Dockerfile.pipeline", "docs/scale-out.md"),
    *(".ci/run", "binder/postBuild"),
)


@pytest.mark.parametrize("name", INSTALLERS)
def test_no_command_installs_a_package_without_its_hash(name):
    """A folder has no hash, so it is installed alone and brings no dependencies."""
    text = (ROOT / name).read_text().replace("$(INSTALL)", "pip install").replace("\\\n", " ")
    for command in re.findall(r"pip install\b([^&;\n]*)", text):
        words = command.split()
        if "-r" in words or "$(addprefix" in words:
            assert "-e" not in words
        else:
            assert "--no-deps" in words or words[:1] == ["--quiet"], command


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
    others = (ROOT / name for name in ("environment.yml", "pyproject.toml", "Makefile", ".ci/run"))
    for path in (*LOCKS, *ROOT.glob("envs/*/*.in"), *others):
        assert not re.search("(?<!emit-)index-url|find-links", path.read_text()), path
    for path in LOCKS:
        assert "://" not in path.read_text(), path


def test_every_pinned_package_installs_on_the_oldest_python_that_the_project_accepts():
    needs = {canonical(one.name): one.metadata["Requires-Python"] for one in distributions()}
    refused = [
        name
        for name in REQUIREMENTS
        if needs.get(name) and "3.11.0" not in SpecifierSet(needs[name])
    ]
    assert refused == []


# --- actions and images ---------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Images that are named by tag alone, and why.
BY_TAG = {
    "mcr.microsoft.com/devcontainers/python:3.11-bookworm": (
        "no two public sources state one digest of it"
    ),
}


def test_an_action_is_taken_at_a_commit_with_its_version_beside_it():
    """A tag may be moved to other code; a commit may not."""
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    actions = re.findall(r"uses: (.*)", text)
    assert actions
    pinned = re.compile(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [action for action in actions if not pinned.fullmatch(action)] == []


def images() -> set[str]:
    """The images that come from a registry."""
    found = {json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())["image"]}
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            found |= {job["container"]["image"]} if "container" in job else set()
    for path in (*ROOT.glob("cluster/Dockerfile*"), ROOT / "cluster/versions.env"):
        found |= set(re.findall(r"^(?:ARG )?\w+_IMAGE=(\S+)", path.read_text(), re.MULTILINE))
    return found


def test_an_image_is_named_by_its_digest_unless_it_is_listed_here():
    digest = re.compile(r".+:[\w.-]+@sha256:[0-9a-f]{64}")
    assert {image for image in images() if not digest.fullmatch(image)} == set(BY_TAG)


# --- the wheel ------------------------------------------------------------------------------------

NOT_NEEDED = ("typer", "requests", "pydantic")


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


def with_dependencies(requirements: list[str]) -> dict[str, Distribution]:
    """The installed distributions that fulfil the requirements, and those that they need."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
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
def core(installed, tmp_path_factory):
    """Site packages with the project's wheel and the dependencies of its core."""
    folder = tmp_path_factory.mktemp("core")
    for path in installed.iterdir():
        (folder / path.name).symlink_to(path)
    for needed in with_dependencies(PROJECT["dependencies"]).values():
        link_into(folder, needed)
    return folder


@pytest.mark.slow
def test_the_simulator_is_imported_with_the_dependencies_of_the_core(core, tmp_path):
    code = "import sys, faro_lib.simulate; print(faro_lib.__file__, *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],  # -S: without the packages of this environment
        cwd=tmp_path,
        env={"PYTHONPATH": str(core), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    path, *modules = done.stdout.split()
    assert path == str(core / "faro_lib" / "__init__.py")
    assert not {module.split(".")[0] for module in modules} & set(NOT_NEEDED)
    assert not [name for name in NOT_NEEDED if (core / name).exists()]


@pytest.mark.slow
def test_the_wheel_has_the_packages_that_need_no_checkout(installed):
    assert {path.name for path in installed.glob("faro_*") if path.suffix == ""} == {
        "faro_lib",
        "faro_ops",
    }
    assert not (installed / "studies").exists()
