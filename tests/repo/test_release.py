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
from release import archive as release_script
from release.bill import BILL, LICENCES, bills, listed, name_and_version

TRACES = b"the traces of others"
LISTED = {"faro-10jobs": {"files": {"input.json": {"sha256": hashlib.sha256(TRACES).hexdigest()}}}}


def git(folder, *arguments):
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


def write_wheel(path, *lines: str):
    """A wheel without code, with these lines in its metadata."""
    name, version = path.name.split("-")[:2]
    with zipfile.ZipFile(path, "w") as wheel:
        head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
        text = "\n".join([*head, "Requires-Dist: other; extra == 'more'"])
        member = zipfile.ZipInfo(f"{name}-{version}.dist-info/METADATA")
        wheel.writestr(member, f"{text}\n\nRequires-Dist: of a description\n")


def write_source(path):
    """A source archive without code."""
    name = path.name.removesuffix(".tar.gz")
    text = f"Metadata-Version: 2.1\nName: {name[:-4]}\nVersion: 1.0\nLicense: MIT\n".encode()
    with tarfile.open(path, "w:gz") as source:
        member = tarfile.TarInfo(f"{name}/PKG-INFO")
        member.size = len(text)
        source.addfile(member, io.BytesIO(text))


def locked(*paths) -> str:
    """The lines of a lock file for these wheels and source archives."""
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    names = {path: path.name.removesuffix(".tar.gz").split("-")[:2] for path in paths}
    return "".join(
        f"{name}=={version} \\\n    --hash=sha256:{sums[path]}\n"
        for path, (name, version) in names.items()
    )


@pytest.fixture
def folder(tmp_path):
    """A small repository with everything that an archive needs, committed."""
    folder = tmp_path / "checkout"
    wheels = folder / f"build/wheelhouse-{sys.version_info.major}{sys.version_info.minor}"
    wheels.mkdir(parents=True)
    small = wheels / "small-1.0-py3-none-any.whl"
    write_wheel(small, "License: BSD")
    (wheels / "small-0.9-py3-none-any.whl").write_text("of an earlier pin")
    (wheels / "small-1.0-cp27-cp27m-win32.whl").write_text("of another platform")
    files = {
        "pyproject.toml": '[project]\nversion = "1.2.3"\n',
        "requirements.txt": f"# a comment\n{locked(small)}",
        "envs/release/licences.yaml": "quiet: MIT\n",
        "envs/tests/requirements.txt": "# a comment\n",
        "envs/build/requirements.txt": "",
        "data/sources.yaml": yaml.safe_dump(LISTED),
        "data/recorded.csv": "a,b\n1,2\n",
        ".gitignore": "/build/\n/ro-crate-metadata.json\ndist/\nresults/\ndata/raw/\n",
        "run.sh": "#!/bin/sh\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "run.sh").chmod(0o755)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    (folder / "ro-crate-metadata.json").write_text("{}")
    return folder


def bills_of(files, stated, tools) -> dict[str, bytes]:
    """Stands in for the tools: all packages under one licence."""
    packages = [name_and_version(path) for path in files]
    components = [
        {"name": name, "version": version, "licenses": ["MIT"]} for name, version in packages
    ]
    rows = "".join(f"{name},{version},MIT\n" for name, version in packages)
    bill = json.dumps({"components": components}).encode()
    return {BILL: bill, LICENCES: f"name,version,licence\n{rows}".encode()}


@pytest.fixture
def release(folder, monkeypatch, capsys, tmp_path):
    """A function that runs the script in that repository: (exit status, output, errors)."""
    spec = importlib.util.spec_from_file_location("archive", ROOT / "workflow/release/archive.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tools = tmp_path / "tools"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin/cyclonedx-py").touch()
    for name, value in {"ROOT": folder, "TOOLS": tools, "bills": bills_of}.items():
        monkeypatch.setattr(module, name, value)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["archive.py", *map(str, arguments)])
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
    added |= {"ro-crate-metadata.json"}
    lists = {BILL, LICENCES, "SHA256SUMS"}
    assert set(files) == {*committed.stdout.split(), *added, *lists}
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


def without_crate(folder):
    (folder / "ro-crate-metadata.json").unlink()


def without_wheel(folder):
    for wheel in folder.glob("build/*/small-1.0-py3*"):
        wheel.unlink()


def a_wheel_of_another_hash(folder):
    (wheel,) = folder.glob("build/*/small-1.0-py3*")
    write_wheel(wheel, "License: of somebody else")


def a_need_that_is_not_pinned(folder):
    (wheel,) = folder.glob("build/*/small-1.0-py3*")
    write_wheel(wheel, "Requires-Dist: large>=2")
    (folder / "requirements.txt").write_text(locked(wheel))
    git(folder, "commit", "-qam", "another wheel")


def traces_by_another_name(folder):
    (folder / "data/mine.json").write_bytes(TRACES)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "oops")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (change, "data/recorded.csv: not committed"),
        (new_file, "new.py: not committed"),
        (without_crate, "ro-crate-metadata.json: no such file; `make metadata` writes it"),
        pytest.param(without_wheel, "small==1.0: no package for Python", marks=pytest.mark.slow),
        (a_wheel_of_another_hash, "small==1.0: no package for Python"),
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


def test_a_package_without_a_wheel_is_in_the_archive_as_its_source(folder, release):
    """A wheel that is built here would have a hash that no lock file has."""
    (wheel,) = folder.glob("build/*/small-1.0-py3*")
    source = wheel.with_name("plain-1.0.tar.gz")
    write_source(source)
    (folder / "requirements.txt").write_text(locked(wheel, source))
    git(folder, "commit", "-qam", "one more")
    assert release()[0] == 0
    assert "faro-1.2.3/wheelhouse/plain-1.0.tar.gz" in archived(folder)


# --- the bill of materials and the licences -------------------------------------------------------

TOOLS = ROOT / "build" / "release-venv"
needs_tools = pytest.mark.skipif(
    not (TOOLS / ".ready").exists(),
    reason="the tools are not installed: make build/release-venv/.ready",
)
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) is not None)
"""


def is_valid(bill: bytes) -> bool:
    """Whether CycloneDX's own validator accepts it."""
    done = subprocess.run([TOOLS / "bin/python", "-c", VALIDATE], input=bill, capture_output=True)
    return done.returncode == 0


@pytest.fixture
def packages(tmp_path):
    """A wheel that states its licence, one that does not, and a source archive."""
    paths = [tmp_path / f"{name}-1.0-py3-none-any.whl" for name in ("small", "quiet")]
    write_wheel(paths[0], "License: BSD-3-Clause")
    write_wheel(paths[1])
    write_source(tmp_path / "plain-1.0.tar.gz")
    return [*paths, tmp_path / "plain-1.0.tar.gz"]


@needs_tools
def test_the_bill_is_valid_and_has_each_package_with_version_licence_and_hash(packages):
    made = bills(packages, {"quiet": "LGPL-3.0-only"}, TOOLS)
    assert made == bills(packages, {"quiet": "LGPL-3.0-only"}, TOOLS), "the same bytes again"
    assert is_valid(made[BILL])
    assert not is_valid(made[BILL].replace(b'"library"', b'"a library"'))
    components = json.loads(made[BILL])["components"]
    assert {one["hashes"][0]["content"] for one in components} == {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in packages
    }
    assert set(listed(*made.values())) == {(n, "1.0") for n in ("small", "quiet", "plain")}
    rows = made[LICENCES].decode().splitlines()
    assert rows == [
        "name,version,licence",
        "plain,1.0,MIT",
        "quiet,1.0,LGPL-3.0-only",
        "small,1.0,BSD-3-Clause",
    ]


@needs_tools
def test_a_package_without_a_licence_is_refused(packages):
    with pytest.raises(ValueError, match=r"^quiet==1\.0: its metadata states no licence$"):
        bills(packages, {}, TOOLS)


@pytest.mark.slow
@needs_tools
def test_every_locked_package_is_listed_with_its_licence():
    """In the wheelhouse that `make release` fetched."""
    folder = ROOT / f"build/wheelhouse-{sys.version_info.major}{sys.version_info.minor}"
    if not folder.is_dir():
        pytest.skip("there is no wheelhouse: make release")
    wheels = release_script._wheels(folder)
    made = release_script._bills(wheels)
    assert is_valid(made[BILL])
    wanted = {(name, lock.version) for name, lock in release_script.locked().items()}
    assert set(listed(*made.values())) == wanted
    assert "UNKNOWN" not in made[LICENCES].decode()


def test_without_its_tools_no_archive_is_built(folder, release, tmp_path):
    (tmp_path / "tools/bin/cyclonedx-py").unlink()
    status, _, said = release()
    assert status == 2
    assert said[-1].endswith("tools: no such environment; `make release` sets it up")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (BILL, None, f"{BILL} is missing; `make release` writes it"),
        (LICENCES, None, f"{LICENCES} is missing; `make release` writes it"),
        (
            LICENCES,
            b"name,version,licence\n",
            f"small==1.0 is not in both {BILL} and {LICENCES}",
        ),
    ],
)
def test_a_check_refuses_an_archive_whose_lists_of_packages_are_not_complete(
    folder, release, name, text, message
):
    assert release()[0] == 0
    archive = folder / "dist/faro-1.2.3.tar"
    sums = archived(folder)["faro-1.2.3/SHA256SUMS"].decode().splitlines()
    sums = [line for line in sums if not line.endswith(f"  {name}")]
    if text is not None:
        sums.append(f"{hashlib.sha256(text).hexdigest()}  {name}")
    altered(archive, f"faro-1.2.3/{name}", text)
    altered(archive, "faro-1.2.3/SHA256SUMS", "".join(f"{one}\n" for one in sums).encode())
    status, _, said = release("check", archive)
    assert (status, said) == (2, [f"release: {archive}: {message}"])


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
