"""ServeGen's language-model clients as a workload: exact times and lengths of every request.

The files describe ten clients of a production model over 14 days, without single requests: the rate
and the gaps' distribution of every ten minutes (`windows.csv.gz`), and quantiles of the lengths of
every six hours (`tokens.csv`). Requests are drawn from them. Source: Xiang et al., "ServeGen:
Workload Characterization and Generation of Large Language Model Serving in Production",
arXiv 2505.09999.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.workload.bursts import burst_arrivals, dispersion, fit_hours
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S

WINDOW_S = 600.0
LENGTHS_S = 21_600.0  # quantiles of lengths are of six hours
DAY_S = DAY_MINUTES * MINUTE_S
WINDOWS, TOKENS = "windows.csv.gz", "tokens.csv"
FAMILIES = ("gamma", "weibull")
KINDS = ("input", "output")  # prompts and outputs in the file
LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
QUANTILES = [f"p{round(100 * level):02d}" for level in LEVELS]
WINDOW_COLUMNS = ["job", "start_s", "rate_rps", "family", "shape"]
BURST_WINDOWS_S = (1.0, 10.0, 60.0)
TOKEN_COLUMNS = ["job", "start_s", "tokens", "mean", "std", *QUANTILES, "max"]


@dataclass(frozen=True, slots=True, eq=False)
class Clients:
    """What the files say. A silent window has rate 0; lengths are known in every block."""

    names: tuple[str, ...]
    rate_rps: np.ndarray  # (clients, windows)
    shape: np.ndarray  # of the gaps' distribution, (clients, windows); 1 in silent windows
    weibull: np.ndarray  # bool (clients, windows); the other windows have gamma gaps
    # Mean, standard deviation, QUANTILES and maximum of prompts and of outputs, (clients, blocks,
    # 2, 3 + quantiles).
    lengths: np.ndarray
    pooled: tuple[str, ...]  # names of clients without lengths, which get the others' mean

    @property
    def days(self) -> int:
        return int(self.rate_rps.shape[1] * WINDOW_S // DAY_S)


def read(folder: str | Path) -> Clients:
    """The clients of the two files in `folder`, by name.

    FileNotFoundError names a missing file; ValueError names the file and the line of a bad row.
    """
    windows = _table(Path(folder) / WINDOWS, WINDOW_COLUMNS, "rate_rps", "shape")
    tokens = _table(Path(folder) / TOKENS, TOKEN_COLUMNS, *TOKEN_COLUMNS[3:])
    _check(Path(folder) / WINDOWS, ~windows["family"].isin(FAMILIES), "family", FAMILIES)
    _check(Path(folder) / TOKENS, ~tokens["tokens"].isin(KINDS), "tokens", KINDS)
    names = tuple(sorted(windows["job"].unique()))
    days = int(np.ceil((windows["start_s"].max() + WINDOW_S) / DAY_S))
    grid = len(names), round(days * DAY_S / WINDOW_S)
    at = (
        windows["job"].map(names.index).to_numpy(),
        (windows["start_s"] // WINDOW_S).astype(int).to_numpy(),
    )
    rate_rps, shape, weibull = np.zeros(grid), np.ones(grid), np.zeros(grid, bool)
    rate_rps[at], shape[at] = windows["rate_rps"], windows["shape"]
    weibull[at] = windows["family"] == "weibull"
    lengths, pooled = _lengths(tokens, names, round(days * DAY_S / LENGTHS_S))
    return Clients(names, rate_rps, shape, weibull, lengths, pooled)


def _table(path: Path, columns: list[str], *positive: str) -> pd.DataFrame:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; data/sources.yaml says where it comes from")
    table = pd.read_csv(path)
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(f"{path}: column {missing[0]!r} is missing")
    for name in positive:
        numbers = pd.to_numeric(table[name], errors="coerce")
        _check(path, ~(np.isfinite(numbers) & (numbers >= 0)), name, ("a finite number >= 0",))
    return table


def _check(path: Path, wrong: pd.Series, column: str, accepted: tuple[str, ...]) -> None:
    if wrong.any():
        line = int(np.argmax(wrong)) + 2  # after the head
        raise ValueError(f"{path}, line {line}: {column} must be {' or '.join(accepted)}")


def _lengths(
    tokens: pd.DataFrame, names: tuple[str, ...], blocks: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """`Clients.lengths` and `pooled`: a block without lengths has those of the nearest one."""
    values = ["mean", "std", *QUANTILES, "max"]
    lengths = np.full((len(names), blocks, len(KINDS), len(values)), np.nan)
    known = tokens[tokens["job"].isin(names)]
    lengths[
        known["job"].map(names.index).to_numpy(),
        (known["start_s"] // LENGTHS_S).astype(int).to_numpy(),
        known["tokens"].map(KINDS.index).to_numpy(),
    ] = known[values]
    without = []
    for n, _name in enumerate(names):
        at = np.flatnonzero(~np.isnan(lengths[n, :, 0, 0]))
        if len(at):
            nearest = at[np.abs(np.arange(blocks)[:, None] - at).argmin(axis=1)]
            lengths[n] = lengths[n, nearest]
        else:
            without.append(n)
    lengths[without] = np.delete(lengths, without, axis=0).mean(axis=0)
    return lengths, tuple(names[n] for n in without)


def arrivals_of_day(clients: Clients, client: int, day: int, seed: int = 0) -> np.ndarray:
    """Arrival times in s since the start of `day` (counted from 1), (requests,), ascending.

    A window with n requests has n + 1 independent gaps of its family and shape, scaled to fill the
    window, so its rate is that of the file.
    """
    rng = np.random.default_rng([seed, client, day, 0])
    per_day = round(DAY_S / WINDOW_S)
    parts = []
    for window in range((day - 1) * per_day, day * per_day):
        n = round(clients.rate_rps[client, window] * WINDOW_S)
        shape = clients.shape[client, window]
        gaps = (rng.weibull if clients.weibull[client, window] else rng.gamma)(shape, size=n + 1)
        until = np.cumsum(gaps)
        parts.append((window % per_day + until[:-1] / until[-1]) * WINDOW_S)
    # Rounding may put a request at the end of the day.
    return np.minimum(np.concatenate(parts), np.nextafter(DAY_S, 0))


def tokens_of_day(
    clients: Clients, client: int, day: int, arrival_s: np.ndarray, longest: int, seed: int = 0
) -> np.ndarray:
    """(prompt tokens, output tokens) of the day's requests, whole numbers, (2, requests).

    Up to p99, lengths are interpolated between the quantiles of their six hours. Above it, they are
    exponential, with the mean that the file's mean asks for. None is longer than `longest`.
    """
    rng = np.random.default_rng([seed, client, day, 1])
    level = rng.random((2, len(arrival_s)))
    tail = rng.standard_exponential((2, len(arrival_s)))
    per_day = round(DAY_S / LENGTHS_S)
    edges = np.searchsorted(arrival_s, np.arange(per_day + 1) * LENGTHS_S)
    tokens = np.empty((2, len(arrival_s)))
    for n, (a, b) in enumerate(zip(edges[:-1], edges[1:])):
        for kind in range(2):
            of_block = clients.lengths[client, (day - 1) * per_day + n, kind]
            tokens[kind, a:b] = lengths_at(of_block, level[kind, a:b], tail[kind, a:b])
    return np.clip(np.rint(tokens), 1, longest)


def lengths_at(of_block: np.ndarray, level: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """Lengths at `level`, uniform in [0, 1); `tail` has exponential variates, both (requests,)."""
    mean, quantiles, most = of_block[0], of_block[2:-1], of_block[-1]
    lengths = np.interp(level, LEVELS, quantiles)
    # The mean of the interpolated quantiles, constant below the first and above the last.
    widths = np.diff((0.0, *LEVELS, 1.0))
    ends = np.concatenate([quantiles[:1], quantiles, quantiles[-1:]])
    interpolated = float(widths @ (ends[:-1] + ends[1:]) / 2)
    beyond = max(mean - interpolated, 0.0) / (1 - LEVELS[-1])
    return np.where(level < LEVELS[-1], lengths, np.minimum(lengths + beyond * tail, most))


def burst_agreement(clients: Clients, day: int, seeds: int = 5) -> pd.DataFrame:
    """The index of dispersion of a day's requests, and of bursts fitted to them.

    A row per client and window: `file` is that of requests drawn from the distributions, `found`
    is the mean over `seeds` of `burst_arrivals` with the same counts per minute and the indices
    fitted to each hour, and error is found / file - 1. Windows are compared within their hour.
    """
    rows = []
    for client, name in enumerate(clients.names):
        time_s = arrivals_of_day(clients, client, day)
        counts = np.bincount((time_s / MINUTE_S).astype(int), minlength=DAY_MINUTES)
        of_minute = np.repeat(fit_hours(time_s, 24)[0], 60, axis=0)
        drawn = [
            burst_arrivals(counts, of_minute, np.random.default_rng([seed, client]))
            for seed in range(seeds)
        ]
        for window_s in BURST_WINDOWS_S:
            file = _dispersion(time_s, window_s)
            found = float(np.mean([_dispersion(times, window_s) for times in drawn]))
            row = {"job": name, "window_s": window_s, "file": file, "found": found}
            rows.append(row | {"error": found / file - 1})
    return pd.DataFrame(rows)


def _dispersion(time_s: np.ndarray, window_s: float) -> float:
    windows = round(DAY_S / window_s)
    counts = np.bincount((time_s / window_s).astype(int), minlength=windows)[:windows]
    return float(dispersion(counts[None], round(3600 / window_s))[0])
