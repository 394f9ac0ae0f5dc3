"""Files: atomic writes, arrays cached on disk, searches of paths, and YAML without anchors, aliases or tags."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager that yields a temporary path; the file written there replaces `path`, or is deleted after an error."""
    path = Path(path)
    partial = path.with_name(
        f".{path.name}"
    )  # keeps the suffix, from which writers infer the format
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def cached_array(key: object, compute: Callable[[], Any]) -> Any:
    """The array that `compute` returns, cached in $XDG_CACHE_HOME/faro (~/.cache/faro) under the hash of `repr(key)`.

    If the cached file cannot be read, the array is computed. If the file cannot be written, no error is raised.
    """
    import numpy as np

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "faro"
    path = folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.npy"
    with suppress(OSError, ValueError, EOFError):
        return np.load(path)
    array = compute()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            np.save(partial, array)
    return array


def find_upwards(path: str | Path) -> Path:
    """Look for `path` in the current folder, then in each parent folder. Return `path` itself if no folder has it.

    Notebooks use this: JupyterLab runs them in their own folder, but papermill in the folder where it was started.
    """
    here = Path.cwd()
    return next(
        (found for folder in (here, *here.parents) if (found := folder / path).exists()), Path(path)
    )


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file; ValueError, with file and line, if it is broken or has anchors, aliases or tags."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _PlainLoader)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: {error.problem}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except (
        yaml.YAMLError,
        ValueError,
    ) as error:  # raised for control characters, impossible dates or huge integers
        raise ValueError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None


class _PlainLoader(yaml.SafeLoader):
    """A YAML loader that refuses tags. It also refuses anchors and aliases, which can expand a short file to gigabytes."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if event.anchor or getattr(event, "tag", None):
            problem = "anchors, aliases and tags are not accepted"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)
