"""Download published traces, which data/sources.yaml lists, and check their SHA-256."""

import sys
from pathlib import Path

import yaml

from faro_lib.errors import nearest

SOURCES = Path(__file__).parents[2] / "data" / "sources.yaml"


def fetch(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> list[Path]:
    """Download the missing files of the entry `name` in `sources` into the folder `into`.

    Return the paths of all its files. Existing files are not overwritten. ValueError if a file's
    SHA-256 is not the listed one; OSError if a download fails, or if a missing file has no URL.
    """
    import pooch

    verify(name, into, sources)
    pooch.get_logger().setLevel("WARNING")
    paths = {Path(into) / file: source for file, source in _files(name, sources).items()}
    for path, source in paths.items():
        if path.exists():
            continue
        if "url" not in source:
            raise OSError(
                f"{path}: has no URL ({source['made_from']}); copy the file there yourself"
            )
        url = source["url"]
        sha256 = source["sha256"]
        print(f"fetching {url} into {path}", file=sys.stderr)
        try:
            pooch.retrieve(url, f"sha256:{sha256}", path.name, path.parent)
        except OSError as error:
            cause = str(error).splitlines()[0]
            raise OSError(
                f"{url}: cannot be fetched ({cause}); copy the file to {path} yourself"
            ) from None
        except ValueError:
            raise ValueError(f"{url}: the SHA-256 of the download is not {sha256}") from None
    return list(paths)


def verify(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> None:
    """Check the SHA-256 of those files of the entry `name` that are in the folder `into`.

    ValueError if one is not as listed in `sources`.
    """
    import pooch

    for file, source in _files(name, sources).items():
        path = Path(into) / file
        if not path.exists():
            continue
        sha256 = pooch.file_hash(str(path))
        if sha256 != source["sha256"]:
            listed = source["sha256"]
            raise ValueError(
                f"{path}: SHA-256 {sha256} is not {listed}; remove the file to fetch it again"
            )


def checksums(name: str, into: str | Path = "data/raw", sources: str | Path = SOURCES) -> str:
    """The listed checksums of the files of the entry `name`, in the format of `sha256sum`."""
    files = _files(name, sources)
    return "".join(f"{source['sha256']}  {Path(into) / file}\n" for file, source in files.items())


def _files(name: str, sources: str | Path) -> dict[str, dict[str, str]]:
    """File name -> {"url": ..., "sha256": ...} for the entry `name` in `sources`.

    A file that was made by hand has "made_from" in place of "url". ValueError if there is no such
    entry.
    """
    entries = yaml.safe_load(Path(sources).read_text())
    if name not in entries:
        raise ValueError(f"{sources}: no entry {name!r}; {nearest(name, entries)}")
    return entries[name].get("made", {}) | entries[name]["files"]
