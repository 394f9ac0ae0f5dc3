"""Registries of named objects, and plugin files that register users' own (docs/extending.md)."""

import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from faro_lib.errors import nearest

# Environment variable with paths of plugin files, separated as in PATH.
ENVIRONMENT = "FARO_PLUGINS"
Entry = TypeVar("Entry")


class Registry(dict[str, Entry]):
    """Objects registered under unique names.

    Looking up an unknown name first loads the plugins, which may register it.

    >>> fruit = Registry("fruit")
    >>> fruit.enter("apple", 1)
    1
    >>> fruit.find("aple")
    Traceback (most recent call last):
    ValueError: fruit='aple' is unknown; did you mean 'apple'?
    """

    def __init__(self, noun: str):
        super().__init__()
        self.noun = noun

    def enter(self, name: str, entry: Entry) -> Entry:
        if name in self:
            raise ValueError(f"{self.noun}={name!r} is registered already; names are unique")
        self[name] = entry
        return entry

    def knows(self, name: str) -> bool:
        if name not in self:
            load_plugins()
        return name in self

    def find(self, name: str) -> Entry:
        if not self.knows(name):
            raise ValueError(f"{self.noun}={name!r} is unknown; {nearest(name, self)}")
        return self[name]


def load_plugins(paths: Iterable[str | Path] = ()) -> None:
    """Run each plugin file in FARO_PLUGINS and `paths`, unless it has already run or been imported.

    FARO_PLUGINS then lists all files for child processes. Raises FileNotFoundError if a file is
    missing, and ValueError if one fails.
    """
    named = [path for path in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if path]
    plugins = list(dict.fromkeys(str(Path(path).resolve()) for path in [*named, *paths]))
    for path in plugins:
        _run_once(Path(path))
    if plugins:
        os.environ[ENVIRONMENT] = os.pathsep.join(plugins)


def _run_once(path: Path) -> None:
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    if str(path) in loaded:
        return
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; a plugin is a .py file that registers what it adds"
        )
    name = f"faro_plugin_{path.stem}_{crc32(bytes(path)):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(
            f"{path}: not a Python file; a plugin is a .py file that registers what it adds"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
