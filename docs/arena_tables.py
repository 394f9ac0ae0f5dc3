"""The tables of docs/arena.md, from the entries in data/arena.

python docs/arena_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import marked
import numpy as np

from faro_ops.arena.scenarios import scenarios
from studies.arena import scores
from studies.arena.scores import Entry, read_entries

ROOT = Path(__file__).parent.parent
PAGE, KEPT = ROOT / "docs/arena.md", ROOT / "data/arena"
ENVIRONMENT = ROOT / "data/arena-environment.json"  # of benchmarks/arena_speed.py


def kept() -> dict[str, Entry]:
    """Policy -> its entry in data/arena."""
    return read_entries(KEPT)


def ranking(entries: dict[str, Entry]) -> str:
    """A row per entry: rank and regret with 95 % intervals, regret by seed, decision time,
    scenarios with the least regret.
    """
    regret, _ = scores.by_scenario(entries)
    least = scores.lowest(regret)
    lines = [
        "| rank | entry | regret | public seeds | hidden seeds | decision | least regret in |",
        "| --- " * 7 + "|",
    ]
    for name, row in scores.ranking(entries).iterrows():
        mean = f"{row['regret']:.1%} ({row['low']:.1%} to {row['high']:.1%})"
        rank = f"{row['rank']:.0f} ({row['first']:.0f} to {row['last']:.0f})"
        rank = f"failed, would be {row['rank']:.0f}" if row["failures"] else rank
        wins = ", ".join(regret.index[least[name]])
        cells = (
            rank,
            name,
            mean,
            f"{row['public']:.1%}",
            f"{row['hidden']:.1%}",
            f"{row['decision_ms']:.1f} ms",
            wins,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by_scenario(entries: dict[str, Entry]) -> str:
    """A row per scenario: the clairvoyant's lost utility and each entry's regret; the least regret
    is bold.
    """
    regret, bound = scores.by_scenario(entries)
    lines = [f"| scenario | bound | {' | '.join(entries)} |", "| --- " * (2 + len(entries)) + "|"]
    for scenario, values in regret.iterrows():
        cells = [
            f"**{value:.1%}**" if value == values.min() else f"{value:.1%}" for value in values
        ]
        lines.append(f"| {scenario} | {bound[scenario]:.1%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(measured: dict[str, Any]) -> str:
    """Simulated minutes per CPU second, by interval of the decisions and kind of action."""
    lines = ["| decisions | single requests | fluid |", "| --- " * 3 + "|"]
    for interval, tick_s in (("every minute", 60), ("every five minutes", 300)):
        for action, text in (("still", "replicas kept"), ("random", "random replicas")):
            rates = [
                measured["minutes_per_s"][f"{queue} {tick_s}"][action]
                for queue in ("requests", "fluid")
            ]
            lines.append(f"| {interval}, {text} | {' | '.join(f'{rate:,.0f}' for rate in rates)} |")
    return "\n".join(lines)


def error(measured: dict[str, Any]) -> str:
    """Lost utility with single requests and with the fluid model, and the mean and absolute errors
    per job.
    """
    losses = measured["lost_utility"]
    policies = list(next(iter(losses.values())))
    lines = [f"| scenario | {' | '.join(policies)} |", "| --- " * (1 + len(policies)) + "|"]
    for scenario, row in losses.items():
        lines.append(
            f"| {scenario} | "
            f"{' | '.join(f'{exact:.2f} -> {fluid:.2f}' for exact, fluid in row.values())} |"
        )
    errors = np.array(
        [(fluid - exact) / 10 for row in losses.values() for exact, fluid in row.values()]
    )
    below = f"Error per job: mean {errors.mean():+.3f}, mean size {np.abs(errors).mean():.3f}, largest size "
    return "\n".join([*lines, "", f"{below}{np.abs(errors).max():.3f}."])


def listed() -> str:
    lines = ["| scenario | set | cores | what it is |", "| --- " * 4 + "|"]
    for one in scenarios().values():
        lines.append(
            f"| {one.name} | {'quick' if one.quick else 'all'} | {one.capacity} | {one.what} |"
        )
    return "\n".join(lines)


def with_tables(page: str, entries: dict[str, Entry]) -> str:
    """The page with its tables replaced."""
    tables = {
        "ranking": ranking(entries),
        "by scenario": by_scenario(entries),
        "scenarios": listed(),
    }
    measured = json.loads(ENVIRONMENT.read_text())
    tables |= {"speed": speed(measured), "error": error(measured)}
    for name, table in tables.items():
        page = marked.with_table(page, f"{name}: docs/arena_tables.py writes this table", table)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), kept()))
    print(PAGE)
