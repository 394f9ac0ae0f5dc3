"""Fetch published data by URL and SHA-256, or take the files that already lie there."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import yaml

from faro_lib.errors import nearest

SOURCES = Path("data/sources.yaml")


def fetch(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> list[Path]:
    """The files of one entry of data/sources.yaml, each with the SHA-256 that is written there.

    A file that lies there is taken if its hash is right and refused if not: it is never overwritten.
    """
    into = Path(into)
    paths = [into / file for file in _files(name, sources)]
    verify(name, into, sources)
    for path, (url, sha256) in zip(paths, _files(name, sources).values()):
        if not path.exists():
            _download(url, sha256, path)
    return paths


def verify(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> None:
    """Refuse files of this entry that lie there with another content than they should have."""
    for file, (_, sha256) in _files(name, sources).items():
        path = Path(into) / file
        if path.exists() and (found := _sha256(path)) != sha256:
            raise ValueError(f"{path}: SHA-256 {found} is not {sha256}; remove the file to fetch it anew")


def fetch_and_record(name: str, into: str | Path, sources: str | Path, record: str | Path) -> None:
    """`fetch`, then write the `checksums` of what lies there into a file."""
    fetch(name, into, sources)
    Path(record).write_text(checksums(name, into, sources))


def checksums(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> str:
    """What `sha256sum --check` reads."""
    return "".join(f"{sha256}  {Path(into) / file}\n" for file, (_, sha256) in _files(name, sources).items())


def _files(name: str, sources: str | Path) -> dict[str, tuple[str, str]]:
    """File name -> (URL, SHA-256)."""
    entries = yaml.safe_load(Path(sources).read_text())
    if name not in entries:
        raise ValueError(f"{sources}: no entry {name!r}; {nearest(name, entries)}")
    return {file: (source["url"], source["sha256"]) for file, source in entries[name]["files"].items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _download(url: str, sha256: str, path: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    print(f"fetching {url} into {path}", file=sys.stderr)
    try:
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent)
    except OSError as error:
        cause = str(error).splitlines()[0]
        raise OSError(
            f"{url}: cannot be fetched ({cause}); copy the file to {path}, its hash will be checked"
        ) from None
    except ValueError:
        raise ValueError(f"{url}: what came is not what it should be, its SHA-256 is not {sha256}") from None
