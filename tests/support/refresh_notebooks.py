"""`make notebooks`: run notebooks by their defaults and keep only the outputs that nbval checks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHECKED = "nbval-check-output"
KEPT = ("jupyter", "tags")  # metadata of a cell; `jupyter` collapses a solution
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def refresh(path: Path) -> int:
    """Execute and rewrite one notebook; return the number of outputs kept."""
    import nbformat
    from nbclient import NotebookClient

    from faro_lib.files import atomic_write

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    kept = 0
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict(
            {name: cell.metadata[name] for name in KEPT if cell.metadata.get(name)}
        )
        cell["id"] = f"cell-{number:02d}"
        if cell.cell_type == "code":
            printed = [output for output in cell.outputs if output.get("name") == "stdout"]
            cell.outputs = printed if CHECKED in tags else []
            # nbval ignores cells without a count.
            cell.execution_count = 1 if cell.outputs else None
            kept += len(cell.outputs)
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    with atomic_write(path) as partial:
        nbformat.write(notebook, partial)
    return kept


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    os.environ["PYTHONPATH"] = str(root)
    for path in [Path(name) for name in sys.argv[1:]] or sorted(
        (root / "notebooks").rglob("[!.]*.ipynb")
    ):
        print(f"{path}: {refresh(path)} checked outputs", flush=True)
