"""Copy tables of a finished run into data/, where pages, notebooks and tests read them.

    python -m studies.tables.keep published results/faro-10jobs

The rules `recorded_*` of workflow/rules/recorded.smk run it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd

from studies.tables.frames import read_tables, write_tables

# Name of the copy -> the table of the run.
PUBLISHED = {
    "summary": "simulate/summary.csv",
    "limit": "simulate/limit.csv",
    "ablation": "ablation/summary.csv",
    "steps": "ablation/steps.csv",
    "curve": "scale/curve.csv",
    "sizes": "scale/sizes.csv",
    "solvers": "sloppify/solvers.csv",
}


def published(results: Path, data: Path) -> None:
    """The tables of docs/comparison.md; of the solvers only decisions for Sum with ten jobs."""
    kept = data / "published-run"
    for name, source in PUBLISHED.items():
        shutil.copy(results / source, kept / f"{name}.csv")
    answers = pd.read_csv(kept / "solvers.csv")
    ten = answers[(answers["objective"] == "Sum") & ~answers["window"].str.contains("enlarged")]
    ten.to_csv(kept / "solvers.csv", index=False)


def wide(results: Path, data: Path) -> None:
    """The tables of docs/elsewhere.md: a file per workload."""
    for path in sorted(results.glob("days/*/paired.csv")):
        shutil.copy(path, data / "wide-run" / f"{path.parent.name}.csv")


def kubernetes(results: Path, data: Path) -> None:
    """The tables of notebook 81, as text."""
    write_tables(read_tables(results / "live/kind"), data / "recorded-kubernetes", as_text=True)


def kind_pool(results: Path, data: Path) -> None:
    """The summary of shared replicas on the kind cluster."""
    shutil.copy(results / "live/kind/summary.csv", data / "recorded-sharing/kind.csv")


def live(results: Path, data: Path) -> None:
    """The tables of notebook 80."""
    write_tables(read_tables(results / "live/local"), data / "recorded-live")


KEPT = {one.__name__: one for one in (published, wide, kubernetes, kind_pool, live)}


def main(name: str, results: str) -> int:
    """Copy the tables of a run into data/ of the current folder. Returns the exit status."""
    if name not in KEPT:
        print(f"{name}: no such run; accepted: {', '.join(KEPT)}", file=sys.stderr)
        return 2
    KEPT[name](Path(results), Path("data"))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
