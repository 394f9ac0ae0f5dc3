"""What a notebook depends on: the modules of faro_lib that it imports, and those that they import, read from the source.

Nothing is executed. Imports inside functions count, so a module that is loaded late is a dependency all the same.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = "faro_lib"


def modules_of(source: str | Path, root: str | Path = ".") -> list[str]:
    """Files of the package that a notebook or a module reaches, paths relative to `root`, sorted.

    Parameters
    ----------
    source : path of a .ipynb or .py file below `root`, or just the stem of a notebook in notebooks/; a module reaches itself.
    root : folder that holds faro_lib/.
    """
    root = Path(root).resolve()
    path = root / (source if Path(source).suffix else f"notebooks/{source}.ipynb")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; modules_of takes a notebook or a module")
    reached: set[Path] = {path} if path.suffix == ".py" else set()
    waiting = list(imported_by(path, root))
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imported_by(module, root)
    return sorted(str(module.relative_to(root)) for module in reached)


def imported_by(path: Path, root: Path) -> tuple[Path, ...]:
    """Files of the package that one file imports directly; a module's packages (their __init__) come with it."""
    return _imported_by(path, root, path.stat().st_mtime_ns)


@cache
def _imported_by(path: Path, root: Path, _mtime_ns: int) -> tuple[Path, ...]:
    found: dict[Path, None] = {}
    for name in _names(ast.parse(_code(path), str(path)), path, root):
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            file = _file(root, parts[:length])
            if file is None:
                break  # the rest is a name in the module, not a module
            if file != path:
                found[file] = None
    return tuple(found)


def _code(path: Path) -> str:
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


def _names(tree: ast.AST, path: Path, root: Path) -> Iterator[str]:
    """Dotted names that might be modules of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from _ours(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.parent.relative_to(root).parts
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield from _ours(f"{base}.{alias.name}" for alias in node.names)


def _ours(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name.split(".")[0] == PACKAGE)


def _file(root: Path, parts: list[str]) -> Path | None:
    module = root.joinpath(*parts)
    for file in (module.with_suffix(".py"), module / "__init__.py"):
        if file.exists():
            return file
    return None
