"""The tables of an experiment: write, read and join them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from faro_lib.files import atomic_write

SHORT = ("summary", "limit", "recovery")  # stored as CSV; all other tables as Parquet
SIX_DIGITS = "%.6g"


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of an experiment. An empty table has no file.

    Attributes
    ----------
    summary : measures, one row per run.
    minutes : measures, one row per run, job and minute.
    running : number of running replicas, one row per run, job and minute.
    decisions : one row per run, job and tick that has a changed target or drop rate, a reason or a
        prediction.
    limit : lost utility of the clairvoyant policy (`experiments.limits`), one row per capacity and
        trial.
    clairvoyant : that policy's replicas and utility, one row per capacity, trial, job and minute.
    recovery : requests by outcome, and replicas, every few seconds of a run in which a worker is
        deleted.
    about : software versions and properties of the machine, one mapping per trial.
    """

    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    minutes: pd.DataFrame = field(default_factory=pd.DataFrame)
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    running: pd.DataFrame = field(default_factory=pd.DataFrame)
    limit: pd.DataFrame = field(default_factory=pd.DataFrame)
    clairvoyant: pd.DataFrame = field(default_factory=pd.DataFrame)
    recovery: pd.DataFrame = field(default_factory=pd.DataFrame)
    about: tuple[dict[str, Any], ...] = ()

    def frames(self) -> dict[str, pd.DataFrame]:
        """The tables that are not empty, by name."""
        frames = {name: getattr(self, name) for name in NAMES}
        return {name: frame for name, frame in frames.items() if not frame.empty}


NAMES = tuple(field.name for field in fields(Tables) if field.name != "about")


def joined(parts: Iterable[Tables]) -> Tables:
    """One `Tables` in which the tables of all parts are concatenated by name."""
    parts = list(parts)
    joint = {}
    for name in NAMES:
        frames = [part.frames()[name] for part in parts if name in part.frames()]
        if frames:
            joint[name] = pd.concat(frames, ignore_index=True)
    return Tables(**joint, about=tuple(about for part in parts for about in part.about))


def read_tables(folder: str | Path, writer: str = "the pipeline") -> Tables:
    """Read all tables in a folder.

    Raises FileNotFoundError if the folder has no summary.csv. Its message names `writer`, the
    command that writes it.
    """
    folder = Path(folder)
    if not (folder / "summary.csv").exists():
        raise FileNotFoundError(f"{folder}/summary.csv: no such file; {writer} writes it")
    frames = {}
    for name in NAMES:
        if (path := folder / f"{name}.csv").exists():
            frames[name] = pd.read_csv(path)
        elif (path := folder / f"{name}.parquet").exists():
            frames[name] = pd.read_parquet(path)
    about = tuple(json.loads(path.read_text()) for path in sorted(folder.glob("trial-*.json")))
    return Tables(**frames, about=about)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the table to `path`, whose folder is made; after an error, the file is as before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        table.to_csv(partial, index=False)


def write_tables(tables: Tables, folder: str | Path, *, as_text: bool = False) -> None:
    """Write all tables into a folder.

    `as_text` writes all as CSV with six significant digits, for git.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    digits = SIX_DIGITS if as_text else None
    for name, frame in tables.frames().items():
        if as_text or name in SHORT:
            frame.to_csv(folder / f"{name}.csv", index=False, float_format=digits)
        else:
            frame.to_parquet(folder / f"{name}.parquet", index=False)
    for trial, about in enumerate(tables.about):
        (folder / f"trial-{trial}.json").write_text(json.dumps(about, indent=1) + "\n")


def gather(folders: Iterable[str | Path], folder: str | Path) -> None:
    """Read the tables in `folders`, concatenate them and write them into `folder`."""
    write_tables(joined(read_tables(part) for part in folders), folder)
