"""Latency curves measured outside Faro, converted to latency tables."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.errors import message_of
from faro_lib.queueing.latency_table import LatencyTable
from faro_lib.workload.jobs import TOLERANCE, Job

MIN_RATES = 4
NOISE = 0.05  # the latency may fall by up to this share when the rate rises, because measurements are noisy


def read_curve(path: str | Path, job: Job) -> LatencyTable:
    """The latency table of one job from a CSV with the columns replicas, rate_per_replica_rps, pNN_s[, drop_rate].

    pNN_s is a latency quantile of the served requests in seconds. The column of the job's
    `quantile` is read: p99_s for 0.99. Every replica count needs the same rates, at least MIN_RATES
    of them. The largest rate counts as utilisation 1. Raises ValueError for an invalid file, for
    example if latency falls by a share of more than NOISE as the rate rises.
    """
    column = f"p{100 * job.quantile:g}_s"
    try:
        table = pd.read_csv(path)
    except OSError as error:
        raise ValueError(message_of(error)) from None
    except ValueError as error:
        raise ValueError(f"{path}: not a table ({str(error).splitlines()[0]})") from None
    for name in ("replicas", "rate_per_replica_rps", column):
        if name not in table:
            there = (
                ", ".join(name for name in table if re.fullmatch(r"p[\d.]+_s", str(name))) or "none"
            )
            raise ValueError(
                f"{path}: column {name!r} is missing; the latency columns are: {there}"
            )
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        for row in np.flatnonzero(~((values > 0) & np.isfinite(values)))[:1]:
            raise ValueError(
                f"{path}, line {row + 2}: {name}={table[name].iloc[row]} must be a finite number > 0"
            )
    given = table.get("drop_rate", pd.Series(0.0, table.index))
    table["drop_rate"] = pd.to_numeric(given, errors="coerce")
    for row in np.flatnonzero(~table["drop_rate"].between(0, 1))[:1]:
        raise ValueError(
            f"{path}, line {row + 2}: drop_rate={given.iloc[row]} must be a number from 0 to 1"
        )
    curve = table.pivot_table(
        index="rate_per_replica_rps", columns="replicas", values=column, dropna=False
    )
    if len(curve) < MIN_RATES:
        raise ValueError(
            f"{path}: {len(curve)} rates are too few for a curve; at least {MIN_RATES} are needed"
        )
    if curve.isna().any(axis=None):
        rate, replicas = next(
            (rate, x) for x in curve for rate in curve.index if np.isnan(curve.loc[rate, x])
        )
        raise ValueError(
            f"{path}: rate_per_replica_rps={rate:g} is missing for {replicas:g} replicas"
        )
    tail_s = curve.to_numpy()
    for n, k in np.argwhere(tail_s[1:] < (1 - NOISE) * np.maximum.accumulate(tail_s)[:-1])[:1]:
        where = f"at {curve.index[n + 1]:g} requests/s on {curve.columns[k]:g} replicas"
        falls = f"{column} falls to {tail_s[n + 1, k]:g} {where}"
        raise ValueError(f"{path}: {falls}; latency must not fall as the rate rises")
    tail_s = np.maximum.accumulate(np.vstack([tail_s[:1], tail_s]))
    dropped = table.pivot_table(
        index="rate_per_replica_rps", columns="replicas", values="drop_rate"
    ).to_numpy()
    drops = np.vstack([dropped[:1], dropped])
    rates, name = np.array([0.0, *curve.index]), f"curve {path}, p{100 * job.quantile:g}"
    return LatencyTable(
        classes=(name,),
        quantile=np.array([job.quantile]),
        max_rps=np.array([np.inf]),
        rate_per_replica_rps=rates[None],
        saturation_rps=rates[-1:],
        replicas=curve.columns.to_numpy(float),
        tail_s=tail_s[None, :, :, None],
        excess_drops=(drops - (1 - job.quantile))[None, :, :, None],
        own={job.name: name},
    )


def with_curve(table: LatencyTable, curve: LatencyTable, job: Job) -> LatencyTable:
    """Add a latency class for `job` to `table`. All minutes of the class have the latency and drop rate of `curve`."""
    rates = np.linspace(0.0, curve.rate_per_replica_rps[0, -1], table.rate_per_replica_rps.shape[1])
    tail_s, dropped = curve.minutes(job, rates[:, None] * table.replicas, table.replicas)
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
    return replace(
        table,
        classes=(*table.classes, curve.classes[0]),
        own=dict(table.own) | dict(curve.own),
        **joined,
    )
