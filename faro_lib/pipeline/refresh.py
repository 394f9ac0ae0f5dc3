"""Run notebooks by hand's defaults and keep the outputs that nbval checks, and no others: `make notebooks`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHECKED = "nbval-check-output"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def refresh(path: str | Path) -> int:
    """Execute the notebook in its folder and rewrite it free of stray metadata; returns the number of outputs kept."""
    import nbformat
    from nbclient import NotebookClient

    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    kept = 0
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        cell["id"] = f"cell-{number:02d}"
        if cell.cell_type == "code":
            cell.outputs = (
                [o for o in cell.outputs if o.output_type == "stream" and o.name == "stdout"] if CHECKED in tags else []
            )
            cell.execution_count = 1 if cell.outputs else None  # nbval takes a cell without a count for one never run
            kept += len(cell.outputs)
    notebook.metadata = nbformat.NotebookNode(METADATA)
    partial = path.with_suffix(".partial")
    nbformat.write(notebook, partial)
    partial.replace(path)
    return kept


def main() -> None:
    root = Path(__file__).parents[2]
    os.environ["PYTHONPATH"] = str(root)
    paths = [Path(name) for name in sys.argv[1:]] or sorted((root / "notebooks").glob("*.ipynb"))
    for path in paths:
        print(f"{path}: {refresh(path)} checked outputs", flush=True)


if __name__ == "__main__":
    main()
