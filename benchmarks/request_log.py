"""Time and memory of reading a request log, for docs/recommend.md.

    python benchmarks/request_log.py [--rows 10000000]

A CSV with times, jobs and tokens is written into a temporary folder, and read in this process. The
ratio to copying the file says how far reading is from the disk's own time.
"""

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from faro_ops.advise.sources.request_log import read_request_log

CHUNK = 1_000_000
JOBS = np.array([f"service-{n}" for n in range(10)])
START = np.datetime64("2026-03-02T00:00:00.000", "ms")


def write(path: Path, rows: int) -> None:
    """A log of `rows` requests in one day, in the order of time."""
    rng = np.random.default_rng(1)
    step_ms = 86_400_000 / rows
    with path.open("w") as file:
        file.write("time,job,prompt_tokens\n")
        for first in range(0, rows, CHUNK):
            count = min(CHUNK, rows - first)
            at = START + ((first + np.arange(count)) * step_ms).astype("timedelta64[ms]")
            times = np.datetime_as_string(at, unit="ms").tolist()
            jobs = JOBS[rng.integers(len(JOBS), size=count)].tolist()
            tokens = rng.integers(1, 2000, count).tolist()
            file.writelines(
                f"{time_},{job},{token}\n" for time_, job, token in zip(times, jobs, tokens)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        write(path, rows)
        began = time.perf_counter()
        shutil.copy(path, Path(folder) / "copy.csv")
        copied_s = time.perf_counter() - began
        began = time.perf_counter()
        log = read_request_log(path, report=print)
        read_s = time.perf_counter() - began
    assert log.counts.sum() == rows
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{rows} rows: {read_s:.1f} s, {read_s / copied_s:.0f} times a copy, {peak_gb:.2f} GB")


if __name__ == "__main__":
    main()
