"""Files: atomic writes, arrays cached on disk, searches of paths, and plain YAML."""

import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

MAX_UNPACKED_BYTES = 2 << 30  # of a compressed file that is held in memory
READ_BYTES = 1 << 24


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager that yields a temporary path; the file written there then replaces `path`.

    After an error, the temporary file is deleted and `path` stays as it is.
    """
    path = Path(path)
    # The suffix is kept, because writers infer the format from it.
    partial = path.with_name(f".{path.name}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class TooLarge(ValueError):
    """A compressed file unpacks to more than MAX_UNPACKED_BYTES."""


class Bounded(io.RawIOBase):
    """The bytes of a compressed stream; TooLarge after MAX_UNPACKED_BYTES of them.

    A small file may unpack to more than the memory holds.
    """

    def __init__(self, stream: Any):
        self._stream, self._left = stream, MAX_UNPACKED_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        part = self._stream.read(min(size, self._left + 1))
        self._left -= len(part)
        if self._left < 0:
            most = MAX_UNPACKED_BYTES / (1 << 30)
            raise TooLarge(f"it unpacks to more than {most:g} GiB; unpack it, and split it")
        return part

    def readall(self) -> bytes:
        # In parts, because a stream may reserve the memory of all bytes that it is asked for.
        whole = io.BytesIO()
        while part := self.read(READ_BYTES):
            whole.write(part)
        return whole.getvalue()

    def readinto(self, buffer: Any) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def unpacked(path: str | Path) -> Iterator[Any]:
    """What `pandas.read_csv` reads of a file: the path, or of a .gz its `Bounded` bytes."""
    if not str(path).endswith(".gz"):
        yield path
        return
    with Bounded(gzip.open(path)) as stream:
        yield stream


def lines_of(chunks: Iterable[bytes], most_bytes: int) -> Iterator[bytes]:
    """The complete lines in the chunks of a file or a stream, without the line ends.

    A longer line than `most_bytes` is cut to one byte more than these, so that readers notice.

    >>> list(lines_of([b"1\\n2", b"3\\n45", b"67\\n8"], most_bytes=3))
    [b'1', b'23', b'4567']
    """
    start = bytearray()  # of a line whose end has not been read yet
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        start += first[: most_bytes + 1 - len(start)]
        if others:
            yield bytes(start)
            yield from others[:-1]
            start = bytearray(others[-1][: most_bytes + 1])


def cached_array(key: object, compute: Callable[[], Any]) -> Any:
    """The array that `compute` returns, cached on disk under the hash of `repr(key)`.

    The folder is $XDG_CACHE_HOME/faro, or ~/.cache/faro. If the cached file cannot be read, the
    array is computed. If the file cannot be written, no error is raised.
    """
    import numpy as np

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "faro"
    name = hashlib.sha256(repr(key).encode()).hexdigest()
    path = folder / f"{name}.npy"
    with suppress(OSError, ValueError, EOFError):
        return np.load(path)
    array = compute()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            np.save(partial, array)
    return array


def find_upwards(path: str | Path) -> Path:
    """`path` in the current folder or the nearest parent folder that has it, else `path` itself.

    Notebooks need this: JupyterLab runs them in their own folder, papermill where it was started.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / path).exists():
            return folder / path
    return Path(path)


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file.

    Raises ValueError, with file and line, if it is broken or has anchors, aliases or tags.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _PlainLoader)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: {error.problem}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        # Control characters, impossible dates or huge integers.
        raise ValueError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None


class _PlainLoader(yaml.SafeLoader):
    """A YAML loader without tags, anchors and aliases. Aliases can expand to gigabytes."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if event.anchor or getattr(event, "tag", None):
            problem = "anchors, aliases and tags are not accepted"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)
