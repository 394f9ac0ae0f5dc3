"""The archive of `make release`: complete, without data of others, and refused if it is altered."""

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
import zipfile

import pytest
import yaml
from checkouts import ROOT
from network import cut_off

TRACES = b"the traces of others"
LISTED = {"faro-10jobs": {"files": {"input.json": {"sha256": hashlib.sha256(TRACES).hexdigest()}}}}


def git(folder, *arguments):
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


def write_wheel(path, needs: str = ""):
    """A wheel without code."""
    name = "-".join(path.name.split("-")[:2])
    with zipfile.ZipFile(path, "w") as wheel:
        text = "Metadata-Version: 2.1\nRequires-Dist: other; extra == 'more'\n"
        member = zipfile.ZipInfo(f"{name}.dist-info/METADATA")
        wheel.writestr(member, f"{text}{needs}\n\nRequires-Dist: of a description\n")


@pytest.fixture
def folder(tmp_path):
    """A small repository with everything that an archive needs, committed."""
    folder = tmp_path / "checkout"
    files = {
        "pyproject.toml": '[project]\nversion = "1.2.3"\n',
        "requirements.txt": "small==1.0\n",
        "envs/tests/requirements.txt": "# a comment\n",
        "envs/build/requirements.txt": "",
        "data/sources.yaml": yaml.safe_dump(LISTED),
        "data/recorded.csv": "a,b\n1,2\n",
        ".gitignore": "build/\ndist/\nresults/\ndata/raw/\n",
        "run.sh": "#!/bin/sh\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "run.sh").chmod(0o755)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    wheels = folder / f"build/wheelhouse-{sys.version_info.major}{sys.version_info.minor}"
    wheels.mkdir(parents=True)
    write_wheel(wheels / "small-1.0-py3-none-any.whl")
    (wheels / "small-0.9-py3-none-any.whl").write_text("of an earlier pin")
    (wheels / "small-1.0-cp27-cp27m-win32.whl").write_text("of another platform")
    return folder


@pytest.fixture
def release(folder, monkeypatch, capsys):
    """A function that runs the script in that repository: (exit status, output, errors)."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "benchmarks" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["release.py", *map(str, arguments)])
        status = module.main()
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()

    return run


def archived(folder) -> dict[str, bytes]:
    with tarfile.open(folder / "dist/faro-1.2.3.tar") as tar:
        return {one.name: tar.extractfile(one).read() for one in tar.getmembers()}


def make_run(folder, workload: str):
    run = folder / "results/synthetic"
    run.mkdir(parents=True)
    graph = [
        {"@id": "report.html", "@type": "File"},
        {"@id": "gone.csv", "@type": "File"},
        {"@id": "#run", "@type": "CreateAction"},
    ]
    (run / "ro-crate-metadata.json").write_text(json.dumps({"@graph": graph}))
    (run / "config.yaml").write_text(yaml.safe_dump({"workload": workload}))
    for name in ("report.html", "of-no-record.csv"):
        (run / name).write_text(name)


def test_an_archive_has_head_the_pinned_wheels_a_note_and_checksums_of_all(folder, release):
    (folder / "data/raw").mkdir()
    (folder / "data/raw/input.json").write_bytes(TRACES)
    status, said, _ = release()
    assert status == 0
    assert "dist/faro-1.2.3.tar" in said
    files = {name.removeprefix("faro-1.2.3/"): text for name, text in archived(folder).items()}
    committed = subprocess.run(["git", "ls-files"], cwd=folder, capture_output=True, text=True)
    added = {"wheelhouse/small-1.0-py3-none-any.whl", "wheelhouse/PYTHON", "OFFLINE.md"}
    assert set(files) == {*committed.stdout.split(), *added, "SHA256SUMS"}
    sums = dict(line.split("  ")[::-1] for line in files.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(text).hexdigest() for name, text in files.items()}
    assert (
        f"Python {sys.version_info.major}.{sys.version_info.minor}" in files["OFFLINE.md"].decode()
    )


def test_the_same_files_give_the_same_archive_with_executable_scripts(folder, release):
    archive = folder / "dist/faro-1.2.3.tar"
    digests = set()
    for _ in range(2):
        assert release()[0] == 0
        digests.add(hashlib.sha256(archive.read_bytes()).hexdigest())
    assert len(digests) == 1
    with tarfile.open(archive) as tar:
        assert tar.getmember("faro-1.2.3/run.sh").mode == 0o755
        assert tar.getmember("faro-1.2.3/requirements.txt").mode == 0o644


def test_it_has_the_site_and_what_the_record_of_a_run_names(folder, release):
    (folder / "build/site").mkdir()
    (folder / "build/site/index.html").write_text("a page")
    make_run(folder, "synthetic")
    assert release("--site", folder / "build/site", "--run", folder / "results/synthetic")[0] == 0
    names = {name.removeprefix("faro-1.2.3/") for name in archived(folder)}
    assert "site/index.html" in names
    of_run = {name for name in names if name.startswith("run/")}
    assert of_run == {"run/report.html", "run/ro-crate-metadata.json"}


def test_a_run_on_traces_of_others_is_left_out(folder, release):
    make_run(folder, "faro-10jobs")
    status, _, said = release("--run", folder / "results/synthetic")
    assert status == 0
    assert [line for line in said if "is left out: faro-10jobs is not ours to pass on" in line]
    assert not [name for name in archived(folder) if "/run/" in name]


def change(folder):
    (folder / "data/recorded.csv").write_text("a,b\n3,4\n")


def new_file(folder):
    (folder / "new.py").write_text("")


def without_wheel(folder):
    for wheel in folder.glob("build/*/small-1.0-py3*"):
        wheel.unlink()


def a_need_that_is_not_pinned(folder):
    (wheel,) = folder.glob("build/*/small-1.0-py3*")
    write_wheel(wheel, "Requires-Dist: large>=2")


def traces_by_another_name(folder):
    (folder / "data/mine.json").write_bytes(TRACES)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "oops")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (change, "data/recorded.csv: not committed"),
        (new_file, "new.py: not committed"),
        pytest.param(without_wheel, "small==1.0: no wheel for Python", marks=pytest.mark.slow),
        (a_need_that_is_not_pinned, "small-1.0-py3-none-any.whl: it needs large, which"),
        (traces_by_another_name, "data/mine.json: input.json is not ours to pass on"),
    ],
)
def test_what_keeps_an_archive_from_being_built_is_one_line_and_leaves_no_file(
    folder, release, monkeypatch, fault, message
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    fault(folder)
    status, _, said = release()
    assert status == 2
    assert said[-1].startswith(f"release: {message}")
    assert not list(folder.glob("dist/*"))


def altered(archive, name: str, text: bytes | None):
    """The archive with one file replaced, or removed."""
    with tarfile.open(archive) as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar.getmembers()}
    files.pop(name, None)
    if text is not None:
        files[name] = text
    with tarfile.open(archive, "w") as tar:
        for each, content in files.items():
            member = tarfile.TarInfo(each)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data/recorded.csv", b"a,b\n9,9\n"),
        ("data/recorded.csv", None),
        ("data/raw/input.json", TRACES),
    ],
    ids=["changed", "removed", "added"],
)
def test_a_check_refuses_an_archive_whose_files_are_not_those_of_its_checksums(
    folder, release, name, text
):
    assert release()[0] == 0
    archive = folder / "dist/faro-1.2.3.tar"
    altered(archive, f"faro-1.2.3/{name}", text)
    status, _, said = release("check", archive)
    assert (status, said) == (2, [f"release: {archive}: {name} is not as SHA256SUMS lists it"])


def test_a_check_refuses_a_half_archive_and_one_that_is_not_there(folder, release):
    assert release()[0] == 0
    archive = folder / "dist/faro-1.2.3.tar"
    archive.write_bytes(archive.read_bytes()[:200])
    status, _, said = release("check", archive)
    assert status == 2
    assert len(said) == 1
    assert said[0].startswith(f"release: {archive}: cannot be unpacked")
    assert release("check", folder / "none.tar")[0] == 2


def test_a_check_runs_the_claims_there_without_a_network(folder, release):
    """With a Makefile that says what it sees."""
    (folder / "Makefile").write_text(
        "claims-redistributed:\n\t@ls; ! grep -q : /proc/net/route && echo no route\n"
        "claims-published:\n\t@cat data/raw/input.json\n"
    )
    (folder / "tests/support").mkdir(parents=True)
    (folder / "tests/support/network.py").write_text(
        (ROOT / "tests/support/network.py").read_text()
    )
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a makefile")
    cut_off()  # skips where that is impossible
    traces = folder / "data/raw"
    traces.mkdir()
    (traces / "input.json").write_bytes(TRACES)
    assert release()[0] == 0
    status, said, errors = release("check", folder / "dist/faro-1.2.3.tar", "--traces", traces)
    assert (status, errors) == (0, [])
    assert "make claims-redistributed: passed without a network" in said
    assert "make claims-published: passed without a network" in said


def test_the_pins_of_the_archive_agree():
    """A package has one version, whichever file pins it."""
    seen: dict[str, str] = {}
    for name in ("requirements.txt", "envs/tests/requirements.txt", "envs/build/requirements.txt"):
        for line in (ROOT / name).read_text().splitlines():
            if line and not line.startswith("#"):
                package, _, version = line.partition("==")
                assert seen.setdefault(package.lower(), version) == version
    assert {"hatchling", "editables"} <= seen.keys()
