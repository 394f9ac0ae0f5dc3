"""Fetch published data by URL and SHA-256, or accept the files that are there."""

from __future__ import annotations

import sys
from pathlib import Path

from faro_lib.errors import nearest

SOURCES = Path("data/sources.yaml")


def fetch(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> list[Path]:
    """Fetch the missing files of one entry of data/sources.yaml into the folder `into`, and return all its files.

    Raises
    ------
    ValueError : the SHA-256 of a file is wrong; an existing file is never overwritten.
    OSError : a file cannot be fetched.
    """
    verify(name, into, sources)
    paths = {Path(into) / file: source for file, source in _files(name, sources).items()}
    for path, source in paths.items():
        if not path.exists():
            _download(source["url"], source["sha256"], path)
    return list(paths)


def verify(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> None:
    """Refuse existing files of this entry whose SHA-256 is wrong."""
    for file, source in _files(name, sources).items():
        path = Path(into) / file
        if path.exists() and (sha256 := _sha256(path)) != source["sha256"]:
            raise ValueError(f"{path}: SHA-256 {sha256} is not {source['sha256']}; remove the file to fetch it again")


def checksums(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> str:
    """The input of `sha256sum --check` for the files of an entry."""
    return "".join(f"{source['sha256']}  {Path(into) / file}\n" for file, source in _files(name, sources).items())


def _files(name: str, sources: str | Path) -> dict[str, dict[str, str]]:
    """File name -> its url and sha256."""
    import yaml

    entries = yaml.safe_load(Path(sources).read_text())
    if name not in entries:
        raise ValueError(f"{sources}: no entry {name!r}; {nearest(name, entries)}")
    return entries[name]["files"]


def _sha256(path: Path) -> str:
    import pooch

    return pooch.file_hash(str(path))


def _download(url: str, sha256: str, path: Path) -> None:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    print(f"fetching {url} into {path}", file=sys.stderr)
    try:
        pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent)
    except OSError as error:
        cause = str(error).splitlines()[0]
        advice = f"copy the file to {path}, its SHA-256 will be checked"
        raise OSError(f"{url}: cannot be fetched ({cause}); {advice}") from None
    except ValueError:
        raise ValueError(f"{url}: the SHA-256 of the download is not {sha256}") from None
