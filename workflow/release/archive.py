"""Build the archive of a release, dist/faro-VERSION.tar, and check one.

    python -m release.archive                    # make release
    python -m release.archive check ARCHIVE      # make release-check
    python -m release.archive check ARCHIVE --traces data/raw

An archive has the code of HEAD with the recorded tables, the crate of the repository, a
wheelhouse of the pinned packages for this Python with its bill of materials and licences, the site
if it is built, a run with its report if there is one, OFFLINE.md and SHA256SUMS. It never has the
published traces, which are not ours.

A check unpacks the archive in a new folder, compares the checksums and the lists of packages, and
runs the claims there without a network, with nothing installed but what is in the wheelhouse. With
--traces, it lays the published traces beside them and runs their claims, too.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml
from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from faro_lib.files import atomic_write
from faro_lib.workload import PUBLISHED
from release.bill import BILL, LICENCES, bills, listed, metadata, name_and_version

ROOT = Path(__file__).parents[2]
PINS = ("requirements.txt", "envs/tests/requirements.txt", "envs/build/requirements.txt")
ALONE = "envs/tests/requirements.txt"  # installed without what its packages need
WHEELHOUSE = "wheelhouse"
SUMS = "SHA256SUMS"
NOTE = "OFFLINE.md"
METADATA = "ro-crate-metadata.json"
TOOLS = Path(__file__).parents[2] / "build/release-venv"
STATED = "envs/release/licences.yaml"  # licences that no metadata states
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
FETCHED = "data/raw/"  # what `make data` fetches
# Workloads of which the traces, as in a run's results, may be passed on.
OURS = ("synthetic", "data/azure-2019.csv.gz", "data/example.csv")

OFFLINE = """# Faro {version}, with everything that its claims need

The code of commit {commit}, its recorded tables, and a wheelhouse of all pinned packages for
Python {python} on {system}. Without a network,

    sha256sum --quiet --check {sums}
    make claims-redistributed

sets up `.venv` from `{wheelhouse}/` and checks the claims that need no data but those in this
archive (docs/artifact.md). You need Python {python} with venv, and make.

The published traces are not ours to redistribute. Lay the two files that `data/sources.yaml` lists
under `faro-10jobs` into `data/raw/`, or fetch them with `make data`. Then

    make claims-all

checks all claims. Every target of make takes the packages of `.venv` from the wheelhouse. Targets
with an environment of their own (`docs`, `metadata`, `forecasters`, `release`) need a package index
for it.

| what | where |
| --- | --- |
| the documentation as a site | {site} |
| the report of a run, with its record | {run} |
| data, figures and licences, for programs | `{metadata}` |
| the packages of the wheelhouse, as CycloneDX | `{bill}` |
| their licences | `{licences}` |
"""


class Locked(NamedTuple):
    """A line of a lock file: one version, and the SHA-256 of each file that may be installed."""

    version: str
    hashes: frozenset[str]
    line: str


class Refused(Exception):
    """Something that keeps an archive from being built or accepted, in one line."""


def build(run: Path, site: Path, into: Path) -> Path:
    """Write the archive into the folder `into`, and return its path.

    `run` and `site` are left out if they are not there, or if the run has traces of others.
    """
    _refuse_changes()
    wheels = _wheels(ROOT / "build" / f"wheelhouse-{_python().replace('.', '')}")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    commit = _git("rev-parse", "HEAD").decode().strip()
    when = int(_git("log", "-1", "--format=%ct"))
    files: dict[str, Path | bytes] = {
        **dict(_committed()),
        METADATA: _crate(),
        **{f"{WHEELHOUSE}/{path.name}": path for path in wheels},
        **_bills(wheels),
        **_of_site(site),
        **_of_run(run),
    }
    has_run = any(name.startswith("run/") for name in files)
    note = OFFLINE.format(
        version=version,
        commit=commit,
        python=_python(),
        system=f"{platform.system()} {platform.machine()}",
        sums=SUMS,
        wheelhouse=WHEELHOUSE,
        site="`site/index.html`" if "site/index.html" in files else "not in this archive",
        run="`run/report.html`, `run/ro-crate-metadata.json`" if has_run else "not in this archive",
        metadata=METADATA,
        bill=BILL,
        licences=LICENCES,
    )
    files[NOTE] = note.encode()
    files[f"{WHEELHOUSE}/PYTHON"] = f"python{_python()}\n".encode()  # the Makefile reads it
    sums = {name: _sha256(content) for name, content in sorted(files.items())}
    _refuse_traces(sums)
    files[SUMS] = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()

    into.mkdir(parents=True, exist_ok=True)
    archive = into / f"faro-{version}.tar"
    with atomic_write(archive) as partial:
        _write(partial, f"faro-{version}", files, when)
    return archive


def _refuse_changes() -> None:
    changed = _git("status", "--porcelain").decode().splitlines()
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise Refused(f"{changed[0][3:]}{more}: not committed; an archive has the code of HEAD")


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if done.returncode:
        said = done.stderr.decode().strip().splitlines() or ["failed"]
        raise Refused(f"git {arguments[0]}: {said[-1]}")
    return done.stdout


def _committed() -> Iterator[tuple[str, bytes]]:
    """(path, content) of the files of HEAD; executable ones are marked by `_write`."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "HEAD"))) as tar:
        for member in tar.getmembers():
            if content := tar.extractfile(member):
                yield member.name, content.read()


def _crate() -> Path:
    """The crate of the repository, which HEAD does not have."""
    path = ROOT / METADATA
    if not path.exists():
        raise Refused(f"{METADATA}: no such file; `make metadata` writes it")
    return path


@cache
def locked(*files: str) -> dict[str, Locked]:
    """Name -> lock of every package in these lock files; without files, in all PINS."""
    return {
        name: lock
        for file in files or PINS
        for name, lock in _locks((ROOT / file).read_text()).items()
    }


def _locks(text: str) -> dict[str, Locked]:
    """Name -> lock of every package in the text of a lock file."""
    lines = text.replace("\\\n", " ").splitlines()
    found: dict[str, Locked] = {}
    for line in lines:
        wanted, *_ = line.split(" --hash=")
        if wanted.strip() and not wanted.startswith("#"):
            one = Requirement(wanted)
            version = next(iter(one.specifier)).version
            name = canonicalize_name(one.name)
            found[name] = Locked(version, frozenset(HASH.findall(line)), line)
    return found


def _wheels(folder: Path) -> list[Path]:
    """The file of each pinned package for this Python: a wheel, or the source where there is none.

    Each has a hash of the lock files. Those that `folder` lacks are fetched.
    """
    wanted = {(name, lock.version) for name, lock in locked().items()}
    missing = wanted - _found(folder).keys()
    if missing:
        print(f"release: fetching {len(missing)} packages into {folder}", file=sys.stderr)
        said = _fetch(folder, [locked()[name].line for name, _ in sorted(missing)])
        missing = wanted - _found(folder).keys()
        if missing:
            name, version = min(missing)
            raise Refused(f"{name}=={version}: no package for Python {_python()}: {said}")
    found = _found(folder)
    for name, version in sorted(wanted):
        path = found[name, version]
        if name not in locked(ALONE) and (needed := _unpinned(path)):
            raise Refused(f"{path.name}: it needs {needed}, which {' and '.join(PINS)} do not pin")
    return [found[one] for one in sorted(wanted)]


def _fetch(folder: Path, lines: list[str]) -> str:
    """The last line of what pip says while it fetches what these lines of lock files name."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes"]
        options = ["--no-deps", "--no-build-isolation", "--dest", str(folder), "-r", file.name]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
    said = done.stderr.strip().splitlines() or ["pip fetched none"]
    return next((line for line in said if line.lower().startswith("error")), said[-1])


def _unpinned(path: Path) -> str | None:
    """A package that this one needs here and that the archive has not; None if there is none."""
    for line in metadata(path).split("\n\n")[0].splitlines():
        key, _, text = line.partition(": ")
        if key != "Requires-Dist":
            continue
        needed = Requirement(text)
        here = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if here and canonicalize_name(needed.name) not in locked():
            return needed.name
    return None


def _found(folder: Path) -> dict[tuple[str, str], Path]:
    """(name, version) -> file with a hash of the lock files that this Python can install."""
    accepted = set(sys_tags())
    found = {}
    for path in (*sorted(folder.glob("*.tar.gz")), *sorted(folder.glob("*.whl"))):
        name, version = name_and_version(path)
        lock = locked().get(name)
        if lock is None or version != lock.version or _sha256(path) not in lock.hashes:
            continue
        if path.suffix != ".whl" or parse_wheel_filename(path.name)[3] & accepted:
            found[name, version] = path
    return found


def _bills(wheels: list[Path]) -> dict[str, bytes]:
    """The bill of materials and the licences of the wheelhouse, name -> content."""
    if not (TOOLS / "bin/cyclonedx-py").exists():
        raise Refused(f"{TOOLS}: no such environment; `make release` sets it up")
    try:
        return bills(wheels, yaml.safe_load((ROOT / STATED).read_text()), TOOLS)
    except ValueError as error:
        raise Refused(str(error)) from None


def _of_site(site: Path) -> dict[str, Path]:
    if not (site / "index.html").exists():
        print(f"release: {site}/index.html: no such file; `make docs` builds it", file=sys.stderr)
        return {}
    files = (path for path in sorted(site.rglob("*")) if path.is_file())
    return {f"site/{path.relative_to(site).as_posix()}": path for path in files}


def _of_run(run: Path) -> dict[str, Path]:
    """The files of a run that its crate lists; none if its workload is not ours to pass on."""
    if not (run / METADATA).exists():
        print(f"release: {run}/{METADATA}: no such file; `make smoke` runs one", file=sys.stderr)
        return {}
    workload = yaml.safe_load((run / "config.yaml").read_text())["workload"]
    if workload not in OURS:
        print(f"release: {run} is left out: {workload} is not ours to pass on", file=sys.stderr)
        return {}
    graph = json.loads((run / METADATA).read_text())["@graph"]
    named = {METADATA} | {
        one["@id"] for one in graph if "File" in one["@type"] and (run / one["@id"]).is_file()
    }
    return {f"run/{name}": run / name for name in sorted(named)}


def _refuse_traces(sums: dict[str, str]) -> None:
    """Refuse files that data/sources.yaml lists, under any name."""
    fetched = {
        file["sha256"]: name
        for entry in yaml.safe_load((ROOT / "data/sources.yaml").read_text()).values()
        for name, file in entry["files"].items()
    }
    for name, digest in sums.items():
        if digest in fetched or name.startswith(FETCHED):
            raise Refused(f"{name}: {fetched.get(digest, 'fetched data')} is not ours to pass on")


def _write(path: Path, top: str, files: dict[str, Path | bytes], when: int) -> None:
    """A tar of the files in the folder `top`: the same bytes from the same files."""
    executable = {
        line.split("\t")[1]
        for line in _git("ls-files", "--stage").decode().splitlines()
        if line.startswith("100755")
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:  # wheels are compressed
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.mtime = when
            member.mode = 0o755 if name in executable else 0o644
            text = content if isinstance(content, bytes) else content.read_bytes()
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))


def _sha256(content: Path | bytes) -> str:
    text = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha256(text).hexdigest()


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def check(archive: Path, traces: Path | None) -> None:
    """Unpack the archive in a new folder, compare checksums, and run the claims without a network.

    `traces` is the folder of the published traces, or None, which leaves out their claims.
    """
    if not archive.is_file():
        raise Refused(f"{archive}: no such file; `make release` builds it")
    with _unpacked(archive) as folder:
        sums = _checked_sums(archive, folder)
        _refuse_traces(sums)
        _check_bills(archive, folder)
        print(f"{len(sums)} files with the checksums of {SUMS}", flush=True)
        _run(folder, ["make", "claims-redistributed"])
        if traces is not None:
            names = yaml.safe_load((ROOT / "data/sources.yaml").read_text())[PUBLISHED]["files"]
            (folder / "data/raw").mkdir(exist_ok=True)
            for name in names:
                if not (traces / name).is_file():
                    raise Refused(f"{traces / name}: no such file; `make data` fetches it")
                shutil.copy(traces / name, folder / "data/raw")
            _run(folder, ["make", "claims-published"])


@contextmanager
def _unpacked(archive: Path) -> Iterator[Path]:
    """The one folder of an archive, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="faro-release-") as place:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(place, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            cause = str(error).splitlines()[0]
            raise Refused(f"{archive}: cannot be unpacked: {cause}") from None
        tops = list(Path(place).iterdir())
        if len(tops) != 1 or not (tops[0] / SUMS).is_file():
            raise Refused(f"{archive}: no {SUMS} in its folder")
        yield tops[0]


def _checked_sums(archive: Path, folder: Path) -> dict[str, str]:
    """Path -> SHA-256 of all files but SHA256SUMS, which has to list exactly these."""
    listed = dict(line.split("  ", 1)[::-1] for line in (folder / SUMS).read_text().splitlines())
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    found = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    if wrong := sorted(found.items() ^ listed.items()):
        raise Refused(f"{archive}: {wrong[0][0]} is not as {SUMS} lists it")
    return found


def _check_bills(archive: Path, folder: Path) -> None:
    """Refuse an archive whose bill or licences are missing or leave out a locked package."""
    for name in (BILL, LICENCES):
        if not (folder / name).is_file():
            raise Refused(f"{archive}: {name} is missing; `make release` writes it")
    there = set(listed((folder / BILL).read_bytes(), (folder / LICENCES).read_bytes()))
    for file in PINS:
        for name, lock in _locks((folder / file).read_text()).items():
            if (name, lock.version) not in there:
                package = f"{name}=={lock.version}"
                raise Refused(f"{archive}: {package} is not in both {BILL} and {LICENCES}")


def _run(folder: Path, command: list[str]) -> None:
    """Run a command in the unpacked folder, without a network, caches or packages from here."""
    began = time.monotonic()
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    environment = {
        "HOME": str(home),
        "PATH": f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    cut = [sys.executable, str(ROOT / "tests/support/network.py")]
    done = subprocess.run([*cut, *command], cwd=folder, env=environment)
    minutes = (time.monotonic() - began) / 60
    if done.returncode:
        raise Refused(f"{' '.join(command[:2])}: failed without a network")
    print(f"{' '.join(command[:2])}: passed without a network, {minutes:.1f} minutes", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.set_defaults(archive=None)
    commands = parser.add_subparsers(metavar="[check]")
    checking = commands.add_parser("check", help="unpack an archive and run its claims")
    checking.add_argument("archive", type=Path)
    checking.add_argument("--traces", type=Path, help="folder of the published traces")
    parser.add_argument("--run", type=Path, default=ROOT / "results/synthetic")
    parser.add_argument("--site", type=Path, default=ROOT / "build/site")
    parser.add_argument("--into", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    try:
        if arguments.archive is not None:
            check(arguments.archive, arguments.traces)
            return 0
        archive = build(arguments.run, arguments.site, arguments.into)
        size = archive.stat().st_size / 1e6
        print(f"{archive}: {size:.0f} MB, SHA-256 {_sha256(archive)}")
    except (Refused, OSError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
