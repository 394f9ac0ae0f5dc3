"""Request logs for tests: good ones, and one for each fault that a row or a file can have."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

START = pd.Timestamp("2026-03-02T00:00:00")
BAD_ROW = 100  # counted from 0

# Fault -> (column, value in row BAD_ROW + 1, part of the message).
BAD_ROWS = {
    "out of order": ("time", "2026-03-01T07:59:00", "rows are in the order of time"),
    "two time zones": ("time", "2026-03-02T08:00:30+02:00", "the UTC offset of row 1 (none)"),
    "negative tokens": ("prompt_tokens", -5, "prompt_tokens=-5; a number from 0 to 1e+09"),
    "1e12 tokens": ("prompt_tokens", 1e12, "prompt_tokens=1e+12; a number from 0 to 1e+09"),
    "unknown job": ("job", "z", "job 'z'; the jobs are ['a', 'b']"),
}
TRUNCATED = "truncated gzip"
FAULTS = (*BAD_ROWS, TRUNCATED)


def requests_of(minutes: int, per_minute: int = 2, jobs: str = "ab") -> pd.DataFrame:
    """So many requests in each minute, of the jobs in turn, with latencies of 0.1 to 0.2 s."""
    number = np.arange(minutes * per_minute)
    stamps = START + pd.to_timedelta(number * 60 / per_minute, unit="s")
    return pd.DataFrame(
        {
            "time": [f"{stamp:%Y-%m-%dT%H:%M:%S.%f}" for stamp in stamps],
            "job": [jobs[n % len(jobs)] for n in number],
            "prompt_tokens": 10,
            "latency_s": 0.1 + 0.1 * (number % 11) / 10,
        }
    )


def bad_log(fault: str, folder: Path) -> tuple[Path, str]:
    """A log with this fault, and what a message about it contains."""
    table = requests_of(200)
    if fault == TRUNCATED:
        path = folder / "log.csv.gz"
        whole = gzip.compress(requests_of(2000).to_csv(index=False).encode())
        path.write_bytes(whole[: len(whole) // 2])
        return path, "damaged or no log, after row "
    column, value, reason = BAD_ROWS[fault]
    table = table.astype({column: object})
    table.loc[BAD_ROW, column] = value
    path = folder / "log.csv"
    table.to_csv(path, index=False)
    return path, reason


def assert_names_file_and_row(said: str, path: Path, fault: str, reason: str) -> None:
    """The message is one line with the file, the row and the reason."""
    assert "\n" not in said.rstrip("\n")
    assert str(path) in said
    assert reason in said
    if fault != TRUNCATED:
        assert f"row {BAD_ROW + 1}:" in said
