"""The fingerprint of a notebook's or module's code. Snakemake reruns a rule when it changes.

The fingerprint covers the code and all modules of this project that it imports, directly or
indirectly. Imports inside functions count. Comments, docstrings, formatting, outputs and execution
counts do not. No code is executed. Nothing here needs a package that Snakemake does not have.

What is looked up by name is imported by nobody, so the registries are listed here: a file that
looks entries up depends on every module of the registry's package. The whole library in every
fingerprint would be simpler, but then a changed policy would fit the forecasters again.
"""

import ast
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from faro_lib.files import atomic_write

# Part of the cache's key, because cached results depend on this module's code.
OWN_CODE = Path(__file__).read_text()
PACKAGES = ("faro_lib", "faro_ops", "studies")
# Modules and packages of this name only draw figures; a separate rule runs them.
FIGURES = "figures"


class Registry(NamedTuple):
    """Names in a registry's module: those that look entries up, and those that add entries."""

    looks_up: set[str]
    adds: set[str]


# Every module with a registry (tests/pipeline/test_pipeline.py compares this with the library).
REGISTRIES = {
    "faro_lib.allocate.objectives": Registry(
        looks_up={"OBJECTIVES", "objective_of"}, adds={"register_objective"}
    ),
    "faro_lib.allocate.solve": Registry(looks_up={"SOLVERS", "solve"}, adds={"register_solver"}),
    "faro_lib.forecast.forecaster": Registry(
        looks_up={"FITS", "fit", "forecasters"}, adds={"register"}
    ),
    "faro_lib.policies.factories": Registry(
        looks_up={"FACTORIES", "factory_of", "make"},
        adds={"register", "register_family"},
    ),
}


class Parsed(NamedTuple):
    """What is read from one file."""

    digest: str  # SHA-256 of the syntax tree
    bindings: list[list[str]]  # its imports: [module, name in that module, name in this file]


class Imported(NamedTuple):
    """A name of this project that a file imports."""

    name: str  # where it is defined; the last part of the module's name if that is imported
    module: str  # that defines it
    path: Path


def fingerprint(
    source: str | Path,
    root: str | Path = ".",
    *,
    plugins: Iterable[str | Path] = (),
    figures: bool = False,
) -> str:
    """As `Code.fingerprint`, of the code that is in the folder `root` now."""
    return Code(root).fingerprint(source, plugins=plugins, figures=figures)


def modules_of(source: str | Path, root: str | Path = ".", *, figures: bool = False) -> list[str]:
    """As `Code.modules_of`, of the code that is in the folder `root` now."""
    return Code(root).modules_of(source, figures=figures)


class Code:
    """The code of a checkout. Each file is read when it is first asked for, and only once."""

    def __init__(self, root: str | Path = "."):
        self.root = Path(root).resolve()
        self.modules: dict[str, Path] = {}  # full name -> file
        for package in PACKAGES:
            for path in sorted(self.root.glob(f"{package}/**/*.py")):
                self.modules[self._module(path)] = path
        self._parsed: dict[Path, Parsed] = {}
        self._imported: dict[Path, list[Imported]] = {}
        self._needed: dict[Path, set[Path]] = {}

    def fingerprint(
        self, source: str | Path, *, plugins: Iterable[str | Path] = (), figures: bool = False
    ) -> str:
        """SHA-256 of the code of a notebook or module and of all modules that it runs.

        If the code looks names up in a registry, the plugins that add entries to it are included,
        with their imports. A plugin that adds no entries at all is included if the code looks
        names up in any registry.
        """
        start = self._path(source)
        paths = [start, *self._reached(start, figures)]
        looked_up = {registry for path in paths for registry in self._looked_up(path)}
        for plugin in (Path(plugin).resolve() for plugin in plugins):
            added = self._added(plugin)
            if looked_up & added or (looked_up and not added):
                paths += [plugin, *self._reached(plugin, figures)]
        digests = [self.parsed(path).digest for path in dict.fromkeys(paths)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def modules_of(self, source: str | Path, *, figures: bool = False) -> list[str]:
        """Sorted paths, relative to `root`, of the modules that `source` imports, directly or not.

        Modules that only draw figures are left out unless `figures` is set. `source` is the path
        of an .ipynb or .py file, relative to `root`, or a notebook's name without suffix.
        """
        reached = self._reached(self._path(source), figures)
        return [str(path.relative_to(self.root)) for path in reached]

    def parsed(self, path: Path) -> Parsed:
        """The digest and the imports of a file. They are cached on disk by the file's text."""
        if path not in self._parsed:
            package: tuple[str, ...] = ()  # a plugin may be outside `root`
            if self.root in path.parents:
                package = path.parent.relative_to(self.root).parts
            text = path.read_text()
            key = repr((OWN_CODE, sys.version, path.suffix, package, text))
            digest = hashlib.sha256(key.encode()).hexdigest()
            found = _cached(digest)
            if found is None:
                found = _parse(text, path, package)
                _keep(digest, found)
            self._parsed[path] = found
        return self._parsed[path]

    def _reached(self, start: Path, figures: bool) -> list[Path]:
        """Sorted modules in `root` that `start` imports, directly or not; itself, if it is one."""
        reached = set[Path]()
        waiting = [start]
        while waiting:
            path = waiting.pop()
            only_draws = FIGURES in (path.stem, path.parent.name)
            if path in reached or (only_draws and not figures):
                continue
            reached.add(path)
            waiting += self._needed_by(path) - reached
        modules = set(self.modules.values())
        return sorted(reached & modules)

    def _needed_by(self, path: Path) -> set[Path]:
        """Files that one file imports directly or, by a registry, may use."""
        if path not in self._needed:
            needed = {imported.path for imported in self._imports(path)}
            for registry in self._looked_up(path):
                needed |= set(self.modules[registry].parent.glob("*.py"))
            self._needed[path] = needed
        return self._needed[path]

    def _looked_up(self, path: Path) -> set[str]:
        """Modules of the registries in which a file looks entries up."""
        found = set()
        for imported in self._imports(path):
            registry = REGISTRIES.get(imported.module)
            if registry is None:
                continue
            whole_module = imported.module.split(".")[-1]
            if imported.name in registry.looks_up or imported.name == whole_module:
                found.add(imported.module)
        return found

    def _added(self, path: Path) -> set[str]:
        """Modules of the registries to which a file adds entries."""
        return {
            imported.module
            for imported in self._imports(path)
            if imported.module in REGISTRIES and imported.name in REGISTRIES[imported.module].adds
        }

    def _imports(self, path: Path) -> list[Imported]:
        """What a file imports directly.

        `from package import name` counts as an import of the module that defines `name`, not of
        the entire package.
        """
        if path not in self._imported:
            found = [self._defining(base, name) for base, name, _ in self.parsed(path).bindings]
            self._imported[path] = [imported for imported in found if imported]
        return self._imported[path]

    def _defining(self, base: str, name: str) -> Imported | None:
        """What `from base import name` imports; None if no file in `root` defines it."""
        module = f"{base}.{name}".removeprefix(".")
        if module in self.modules:
            return Imported(name, module, self.modules[module])
        if base not in self.modules:
            return None
        path = self.modules[base]
        if path.name == "__init__.py":
            for origin, original, bound in self.parsed(path).bindings:
                if bound == name:
                    return self._defining(origin, original)
        return Imported(name, base, path)

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _path(self, source: str | Path) -> Path:
        return self.root / (source if Path(source).suffix else f"notebooks/{source}.ipynb")


def _cache_file(digest: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(cache) / "faro" / "code" / f"{digest}.json"


def _cached(digest: str) -> Parsed | None:
    with suppress(OSError, ValueError, TypeError):
        return Parsed(*json.loads(_cache_file(digest).read_text()))
    return None


def _keep(digest: str, parsed: Parsed) -> None:
    path = _cache_file(digest)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(parsed))


def _parse(text: str, path: Path, package: tuple[str, ...]) -> Parsed:
    """Parse a file; `package` are the folders that its relative imports start from."""
    tree = _tree(text, path)
    bindings: list[list[str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                base, _, name = alias.name.rpartition(".")
                bindings.append([base, name, alias.asname or name])
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                bindings.append([base, alias.name, alias.asname or alias.name])
    own = [
        [base, name, bound]
        for base, name, bound in bindings
        if base.split(".")[0] in PACKAGES or name in PACKAGES
    ]
    return Parsed(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), own)


def _tree(text: str, path: Path) -> ast.Module:
    """The syntax tree of a module, or of a notebook's code cells, without docstrings."""
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
        text = "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)
    tree = ast.parse(text, str(path))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree
