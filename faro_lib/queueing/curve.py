"""Latency curves measured outside Faro, converted to latency tables."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.files import unpacked
from faro_lib.queueing.latency_table import LatencyTable
from faro_lib.workload.jobs import TOLERANCE, Job

MIN_RATES = 4
# The latency may fall by up to this share when the rate rises, because measurements are noisy.
NOISE = 0.05


def read_curve(path: str | Path, job: Job) -> LatencyTable:
    """The latency table of one job from a CSV file.

    Its columns are replicas, rate_per_replica_rps, pNN_s and, optionally, drop_rate. pNN_s is a
    latency quantile of the served requests in seconds. The column of the job's `quantile` is read:
    p99_s for 0.99. Every replica count needs the same rates, at least MIN_RATES of them. The
    largest rate counts as utilisation 1. Raises ValueError for an invalid file, for example if
    latency falls by a share of more than NOISE as the rate rises.
    """
    column = f"p{100 * job.quantile:g}_s"
    table = _read(path, column)
    curve = table.pivot_table(
        index="rate_per_replica_rps", columns="replicas", values=column, dropna=False
    )
    if len(curve) < MIN_RATES:
        few = f"{len(curve)} rates are too few for a curve"
        raise ValueError(f"{path}: {few}; at least {MIN_RATES} are needed")
    missing = np.argwhere(curve.isna().to_numpy().T)
    if len(missing):
        k, n = missing[0]
        rate, replicas = curve.index[n], curve.columns[k]
        raise ValueError(
            f"{path}: rate_per_replica_rps={rate:g} is missing for {replicas:g} replicas"
        )
    tail_s = curve.to_numpy()  # (rates, counts)
    falling = np.argwhere(tail_s[1:] < (1 - NOISE) * np.maximum.accumulate(tail_s)[:-1])
    if len(falling):
        n, k = falling[0]
        where = f"at {curve.index[n + 1]:g} requests/s on {curve.columns[k]:g} replicas"
        falls = f"{column} falls to {tail_s[n + 1, k]:g} {where}"
        raise ValueError(f"{path}: {falls}; latency must not fall as the rate rises")
    dropped = table.pivot_table(
        index="rate_per_replica_rps", columns="replicas", values="drop_rate"
    ).to_numpy()  # (rates, counts)
    # A first row for rate 0, with the values of the lowest rate.
    tail_s = np.maximum.accumulate(np.vstack([tail_s[:1], tail_s]))
    dropped = np.vstack([dropped[:1], dropped])
    rates = np.array([0.0, *curve.index])
    name = f"curve {path}, p{100 * job.quantile:g}"
    return LatencyTable(
        classes=(name,),
        quantile=np.array([job.quantile]),
        max_rps=np.array([np.inf]),
        rate_per_replica_rps=rates[None],
        saturation_rps=rates[-1:],
        replicas=curve.columns.to_numpy(float),
        tail_s=tail_s[None, :, :, None],
        excess_drops=(dropped - (1 - job.quantile))[None, :, :, None],
        own={job.name: name},
    )


def _read(path: str | Path, column: str) -> pd.DataFrame:
    """The CSV with the latency `column` and with drop rates, which are 0 if it has none."""
    try:
        with unpacked(path) as file:
            table = pd.read_csv(file)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file or folder") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a folder, and a file is needed") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a table ({str(error).splitlines()[0]})") from None
    for name in ("replicas", "rate_per_replica_rps", column):
        if name not in table:
            there = [name for name in table if re.fullmatch(r"p[\d.]+_s", str(name))]
            listed = f"the latency columns are: {', '.join(there) or 'none'}"
            raise ValueError(f"{path}: column {name!r} is missing; {listed}")
        values = pd.to_numeric(table[name], errors="coerce")
        _check(path, table[name], (values > 0) & np.isfinite(values), "a finite number > 0")
    if "drop_rate" not in table:
        table["drop_rate"] = 0.0
    drop_rate = pd.to_numeric(table["drop_rate"], errors="coerce")
    _check(path, table["drop_rate"], drop_rate.between(0, 1), "a number from 0 to 1")
    return table.assign(drop_rate=drop_rate)


def _check(path: str | Path, column: pd.Series, valid: pd.Series, accepted: str) -> None:
    if not valid.all():
        row = int(np.argmin(valid))
        value = f"{column.name}={column.iloc[row]}"
        raise ValueError(f"{path}, line {row + 2}: {value} must be {accepted}")


def with_curve(table: LatencyTable, curve: LatencyTable, job: Job) -> LatencyTable:
    """`table` with a latency class for `job`, whose minutes all have the values of `curve`."""
    # As in every table, row 0 (rate 0) copies row 1. Row 1 has the curve's lowest rate: below it,
    # `LatencyTable.minutes` looks up fewer replicas, which rows at lower rates would do again.
    lowest_rps, highest_rps = curve.rate_per_replica_rps[0, [1, -1]]
    measured = np.linspace(lowest_rps, highest_rps, table.rate_per_replica_rps.shape[1] - 1)
    rates = np.array([0.0, *measured])
    at = np.array([lowest_rps, *measured])[:, None]
    tail_s, dropped = curve.minutes(job, at * table.replicas, table.replicas)
    tail_s = np.where(np.isfinite(tail_s), tail_s, curve.tail_s.max())
    alike = np.broadcast_to(1.0, table.tail_s.shape[1:])
    rows = {
        "quantile": job.quantile,
        "max_rps": np.inf,
        "rate_per_replica_rps": rates,
        "saturation_rps": curve.saturation_rps[0],
        "tail_s": tail_s * alike,
        "excess_drops": (dropped - (1 - job.quantile) - TOLERANCE) * alike,
    }
    joined = {
        name: np.concatenate([getattr(table, name), np.asarray(row)[None]])
        for name, row in rows.items()
    }
    own = dict(table.own) | dict(curve.own)
    return replace(table, classes=(*table.classes, *curve.classes), own=own, **joined)
