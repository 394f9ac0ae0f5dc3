"""Join the tables of scattered jobs into one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def gather(parts: Iterable[str | Path], whole: str | Path) -> None:
    """Concatenate tables (.csv or .parquet, all alike) in the order given; the whole appears at once or not at all."""
    import pandas as pd

    whole = Path(whole)
    read = pd.read_csv if whole.suffix == ".csv" else pd.read_parquet
    table = pd.concat([read(part) for part in parts], ignore_index=True)
    whole.parent.mkdir(parents=True, exist_ok=True)
    partial = whole.with_name(f".{whole.name}")
    if whole.suffix == ".csv":
        table.to_csv(partial, index=False)
    else:
        table.to_parquet(partial, index=False)
    partial.replace(whole)
