"""Entities that the RO-Crates of a run and of the repository have in common."""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faro_lib.files import atomic_write

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

METADATA = "ro-crate-metadata.json"
LICENSE = "https://spdx.org/licenses/Apache-2.0"
LICENCES = {
    LICENSE: "Apache License 2.0",
    "https://spdx.org/licenses/CC-BY-4.0": "Creative Commons Attribution 4.0 International",
}
# Terms that the context of RO-Crate 1.1 lacks.
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}
TYPES = {
    ".ipynb": "application/x-ipynb+json",
    ".jsonl": "application/jsonl",
    ".npz": "application/zip",
    ".parquet": "application/vnd.apache.parquet",
    ".smk": "text/plain",
    ".yaml": "application/yaml",
}


def add_entity(crate: ROCrate, identifier: str, kind: str, /, **properties: Any) -> Entity:
    """Add a thing that is no file of the crate, and return it."""
    from rocrate.model.contextentity import ContextEntity

    entity = crate.add(ContextEntity(crate, identifier, properties={"@type": kind}))
    for name, value in properties.items():
        entity[name] = value
    return entity


def add_licence(crate: ROCrate, url: str) -> Entity:
    """Add one of LICENCES, and return it."""
    return add_entity(crate, url, "CreativeWork", name=LICENCES[url])


def add_profiles(crate: ROCrate, profiles: Mapping[str, str]) -> None:
    """State the profiles that the crate conforms to; `profiles` maps the URL of each to its name.

    A URL ends in the version of the profile.
    """
    crate.root_dataset["conformsTo"] = [
        add_entity(crate, url, "CreativeWork", name=name, version=url.rpartition("/")[2])
        for url, name in profiles.items()
    ]


def described(path: Path, name: str) -> dict[str, str]:
    """The name of a file and its type, by its suffix."""
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    return {"name": name, "encodingFormat": kind or "application/octet-stream"}


def metadata_text(crate: ROCrate) -> str:
    """The text of the file METADATA."""
    crate.metadata.extra_terms.update(TERMS)
    return json.dumps(crate.metadata.generate(), indent=1, ensure_ascii=False) + "\n"


def write_metadata(crate: ROCrate, folder: Path) -> None:
    """Write the file METADATA into a folder."""
    with atomic_write(folder / METADATA) as partial:
        partial.write_text(metadata_text(crate))


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
