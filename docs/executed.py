"""Execute the notebooks that no run has executed, so that their pages on the site have pictures.

`make docs` runs it: `python docs/executed.py [NAME...]`, such as 00_tour alone. The tour is no
stage of the pipeline, and a run leaves out stages that it is not configured for. These notebooks
run by their defaults, on small data, into build/executed; a copy that is newer than the code is
kept.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Folder of the notebooks that a run has executed.
EXECUTED = ROOT / os.environ.get("EXECUTED", "results/synthetic/notebooks")
BY_DEFAULTS = ROOT / "build/executed"


def copy_of_run(path: Path, folder: Path) -> Path | None:
    """The executed copy of a notebook, the first of several (`50_simulation-16`); None without."""
    for copy in (folder / path.name, *sorted(folder.glob(f"{path.stem}-*.ipynb"))):
        if copy.exists() and ".partial" not in copy.name:
            return copy
    return None


def missing() -> list[Path]:
    """The notebooks without a copy of a run, or of their own that is newer than all code."""
    code = [*(ROOT / "faro_lib").rglob("*.py"), *(ROOT / "studies").rglob("*.py")]
    newest = max(path.stat().st_mtime for path in code)
    wanted = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        own = BY_DEFAULTS / path.name
        current = max(newest, path.stat().st_mtime)
        if copy_of_run(path, EXECUTED) or (own.exists() and own.stat().st_mtime > current):
            continue
        wanted.append(path)
    return wanted


def main(*names: str) -> int:
    """Execute the missing notebooks, or only those that are named. Returns the exit status."""
    from faro_pipeline.notebook import NotebookError, run_notebook

    BY_DEFAULTS.mkdir(parents=True, exist_ok=True)
    for path in missing():
        if names and path.stem not in names:
            continue
        print(f"docs: executing {path.relative_to(ROOT)}", file=sys.stderr, flush=True)
        log = BY_DEFAULTS / f"{path.stem}.log"
        try:
            run_notebook(path, BY_DEFAULTS / path.name, {}, log)
        except NotebookError as error:
            print(f"docs: {path.name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
