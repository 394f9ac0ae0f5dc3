"""The bill of materials and the licences of the packages in a wheelhouse.

Two tools read the packages' own metadata: cyclonedx-py writes the bill as CycloneDX JSON, and
pip-licenses lists the licences. They are in build/release-venv, which `make release` sets up from
envs/release/requirements.txt.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

BILL = "bom.cdx.json"
LICENCES = "LICENCES.csv"
COLUMNS = ("name", "version", "licence")
UNKNOWN = "UNKNOWN"  # what pip-licenses writes where the metadata states none
METADATA = re.compile(r"[^/]+\.dist-info/METADATA|[^/]+/PKG-INFO")
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(error and f"the bill is not valid: {error}".replace("\\n", " "))
"""


def bills(files: Iterable[Path], stated: Mapping[str, str], tools: Path) -> dict[str, bytes]:
    """BILL and LICENCES, name -> content, of these wheels and source archives.

    `stated` has the licences of packages whose metadata states none, by canonical name; `tools` is
    the environment of the tools. The same files give the same bytes.

    Raises:
        ValueError: if a tool fails, a package has no licence, or the bill is not valid.
    """
    packages = {name_and_version(path): path for path in files}
    with tempfile.TemporaryDirectory(prefix="faro-bill-") as place:
        python = _environment(Path(place), packages)
        found = json.loads(
            _said(
                [tools / "bin/pip-licenses", "--with-system", "--format=json"], "--python", python
            )
        )
        bill = json.loads(
            _said(
                [tools / "bin/cyclonedx-py", "environment", "--output-reproducible"],
                *("--spec-version=1.6", "-o", "-", python),
            )
        )
    licences = {str(canonicalize_name(one["Name"])): one["License"] for one in found}
    for name, version in packages:
        if licences.get(name, UNKNOWN) == UNKNOWN:
            if name not in stated:
                raise ValueError(f"{name}=={version}: its metadata states no licence")
            licences[name] = stated[name]
    for component in bill["components"]:
        name = str(canonicalize_name(component["name"]))
        component.setdefault("licenses", [{"license": {"name": licences[name]}}])
        content = packages[name, component["version"]].read_bytes()
        component["hashes"] = [
            {"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()},
        ]
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    _said([tools / "bin/python", "-c", VALIDATE], given=text)
    rows = [(name, version, licences[name]) for name, version in sorted(packages)]
    return {BILL: text.encode(), LICENCES: _table(rows).encode()}


def name_and_version(path: Path) -> tuple[str, str]:
    """The canonical name and the version of a wheel or a source archive, from its file name."""
    if path.suffix == ".whl":
        name, version, _, _ = parse_wheel_filename(path.name)
    else:
        name, version = parse_sdist_filename(path.name)
    return str(name), str(version)


def metadata(path: Path) -> str:
    """The metadata of a wheel or a source archive."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            (name,) = (one for one in wheel.namelist() if METADATA.fullmatch(one))
            return wheel.read(name).decode()
    with tarfile.open(path) as source:
        member = next(one for one in source.getmembers() if METADATA.fullmatch(one.name))
        content = source.extractfile(member)
        return content.read().decode() if content else ""


def listed(bill: bytes, licences: bytes) -> Iterator[tuple[str, str]]:
    """(name, version) of the packages that both files list, with a licence in each."""
    in_bill = {
        (str(canonicalize_name(one["name"])), one["version"])
        for one in json.loads(bill)["components"]
        if one.get("licenses")
    }
    rows = csv.DictReader(io.StringIO(licences.decode()))
    for row in rows:
        package = row["name"], row["version"]
        if package in in_bill and row["licence"]:
            yield package


def _environment(place: Path, packages: Mapping[tuple[str, str], Path]) -> Path:
    """A Python in which the packages seem installed: it has their metadata and nothing else."""
    venv.create(place, with_pip=False, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    for (name, version), path in packages.items():
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(metadata(path))
    return place / "bin/python"


def _said(command: list[Path | str], *arguments: Path | str, given: str = "") -> str:
    """The output of a tool, which does not see the packages of this process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in (*command, *arguments)]
    done = subprocess.run(words, input=given, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr.strip() or "failed").splitlines()[-1]
        raise ValueError(f"{Path(words[0]).name}: {said}")
    return done.stdout


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()
