"""The lists of dependencies agree, and every dependency is pinned."""

import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions

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


def test_make_locks_renews_every_lock_file():
    made = (ROOT / "Makefile").read_text()
    renewed = re.search(r"^LISTS = .*?^locks:.*?\n\n", made, re.MULTILINE | re.DOTALL)[0]
    for path in LOCKS:
        name = str(path.relative_to(ROOT / "envs") if path.parent != ROOT else path.name)
        assert re.search(rf"[ /,]{re.escape(name.removesuffix('.txt'))}\b", renewed), name


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


def test_pip_refuses_a_file_whose_hash_is_not_in_the_lock(tmp_path):
    wheel = tmp_path / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        info = "small-1.0.dist-info"
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    command = [sys.executable, "-m", "pip", "download", "--no-index", "--dest", tmp_path / "into"]
    status = {}
    for name, stated in {"right": digest, "tampered": digest[::-1]}.items():
        lock = tmp_path / f"{name}.txt"
        lock.write_text(f"small==1.0 --hash=sha256:{stated}\n")
        options = ["--no-deps", "--find-links", tmp_path, "-r", lock]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600)
        status[name] = done.returncode
    assert status == {"right": 0, "tampered": 1}
    assert "DO NOT MATCH THE HASHES" in done.stderr


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
