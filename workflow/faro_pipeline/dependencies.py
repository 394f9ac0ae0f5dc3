"""The fingerprint of a notebook's or module's code. Snakemake reruns a rule when the fingerprint of its code changes.

The fingerprint covers the code and all modules of this project that it imports, directly or indirectly. Imports inside
functions count. Comments, docstrings, formatting, outputs and execution counts do not. No code is executed.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from faro_lib.files import cached_array

OWN_CODE = Path(
    __file__
).read_text()  # part of the cache's key, because cached results depend on this module's code
PACKAGES = {"faro_lib", "faro_ops", "studies"}
FIGURES = (
    "figures"  # modules and packages of this name only draw figures; a separate rule runs them
)


def fingerprint(
    source: str | Path,
    root: str | Path = ".",
    *,
    plugins: Iterable[str | Path] = (),
    figures: bool = False,
) -> str:
    """SHA-256 of the code of a notebook or module and of all modules that it runs (`modules_of`).

    If the code looks names up in a registry, the plugins that add entries to it are included, with their imports.
    Plugins that add no entries at all are included if the code looks names up in any registry.
    """
    root = Path(root).resolve()
    paths = {_path(source, root): None}
    paths |= dict.fromkeys(root / module for module in modules_of(source, root, figures=figures))
    looked_up = {home for path in paths for home in _registries(path, root)}
    for plugin in (Path(plugin).resolve() for plugin in plugins):
        if looked_up & (_registries(plugin, root, registers=True) or looked_up):
            paths |= dict.fromkeys(
                [plugin, *(root / module for module in modules_of(plugin, root, figures=figures))]
            )
    digests = (_parsed(path, root, path.stat().st_mtime_ns)[0][0] for path in paths)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def modules_of(source: str | Path, root: str | Path = ".", *, figures: bool = False) -> list[str]:
    """Sorted paths, relative to `root`, of the modules that `source` imports, directly or not.

    Modules that only draw figures are left out unless `figures` is set. `source` is the path of an .ipynb or .py file,
    relative to `root`, or a notebook's name without suffix.
    """
    root = Path(root).resolve()
    reached, waiting = set[Path](), [_path(source, root)]
    while waiting:
        path = waiting.pop()
        if path not in reached and (figures or FIGURES not in (path.stem, path.parent.name)):
            reached.add(path)
            waiting += imported_by(path, root)
            # A file that imports a registry may use any entry. So all files of the registry's package are included.
            waiting += [file for home in _registries(path, root) for file in home.glob("*.py")]
    return sorted(
        str(path.relative_to(root))
        for path in reached
        if path.suffix == ".py" and root in path.parents
    )


def imported_by(path: Path, root: Path) -> set[Path]:
    """Files of this project that one file imports directly.

    `from package import name` counts as an import of the module that defines `name`, not of the entire package.
    """
    return {file for _, file in _imports(path, root, path.stat().st_mtime_ns)} - {path}


def _registries(path: Path, root: Path, registers: bool = False) -> set[Path]:
    """Folders of the packages whose registries a file reads, or adds entries to if `registers` is set.

    Importing `register...` from a registry's module counts as adding. Other functions and constants count as reading.
    """
    return {
        file.parent
        for name, file in _imports(path, root, path.stat().st_mtime_ns)
        if (name.isupper() or name.islower()) and name.startswith("register") == registers
        if any(bound == "Registry" for *_, bound in _bindings(file, root))
    }


@cache
def _imports(path: Path, root: Path, mtime_ns: int) -> list[tuple[str, Path]]:
    """Each name of this project that a file imports, with the file that defines it."""
    return [
        (name, file)
        for base, name, _ in _bindings(path, root)
        if (file := _defining(base, name, root))
    ]


def _defining(base: str, name: str, root: Path) -> Path | None:
    """The file that defines what `from base import name` imports; None if no file in `root` does."""
    file = _file(f"{base}.{name}", root) or _file(base, root)
    if file == _file(base, root) and file and file.name == "__init__.py":
        for origin, alias, bound in _bindings(file, root):
            if bound == name:
                return _defining(origin, alias, root)
    return file


def _bindings(path: Path, root: Path) -> list[list[str]]:
    """A file's imports from this project: [module, name in that module, name in this file]."""
    return _parsed(path, root, path.stat().st_mtime_ns)[1:]


@cache
def _parsed(path: Path, root: Path, mtime_ns: int) -> list[list[str]]:
    """[SHA-256 of a file's syntax tree, "", ""], followed by the file's `_bindings`. The result is cached on disk."""
    package = (
        path.parent.relative_to(root).parts if root in path.parents else ()
    )  # a plugin may be outside `root`
    text = path.read_text()
    key = (OWN_CODE, sys.version, path.suffix, package, text)
    return cached_array(key, lambda: _parse(text, path, package)).tolist()


def _parse(text: str, path: Path, package: tuple[str, ...]) -> np.ndarray:
    tree, bindings = _tree(text, path), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            split = [(alias.name.rpartition("."), alias.asname) for alias in node.names]
            bindings += [[base, name, bound or name] for (base, _, name), bound in split]
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parents, *filter(None, [node.module])])
            bindings += [[base, alias.name, alias.asname or alias.name] for alias in node.names]
    own = [binding for binding in bindings if PACKAGES & {binding[0].split(".")[0], binding[1]}]
    return np.array([[hashlib.sha256(ast.dump(tree).encode()).hexdigest(), "", ""], *own])


def _path(source: str | Path, root: Path) -> Path:
    return root / (source if Path(source).suffix else f"notebooks/{source}.ipynb")


def _file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*filter(None, module.split(".")))
    return next(
        (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None
    )


def _tree(text: str, path: Path) -> ast.Module:
    """The syntax tree of a module, or of a notebook's code cells, without docstrings."""
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        lines = [line for cell in cells for line in "".join(cell["source"]).splitlines()]
        text = "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)
    tree = ast.parse(text, str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = (
                node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            )
    return tree
