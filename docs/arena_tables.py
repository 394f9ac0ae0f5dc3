"""The tables of docs/arena.md, from the entries in data/arena.

python docs/arena_tables.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import marked
import numpy as np

from faro_lib.arena.scenarios import scenarios

ROOT = Path(__file__).parent.parent
PAGE, KEPT = ROOT / "docs/arena.md", ROOT / "data/arena"
ENVIRONMENT = ROOT / "data/arena-environment.json"  # of benchmarks/arena_speed.py
DRAWS, INTERVAL = 2000, (0.025, 0.975)


def kept() -> dict[str, dict[str, Any]]:
    """Policy -> entry, in ascending order of mean regret over all scenarios and seeds."""
    entries = [json.loads(path.read_text()) for path in sorted(KEPT.glob("*.json"))]
    return {entry["policy"]: entry for entry in sorted(entries, key=lambda entry: per_minute(entry).mean())}


def per_minute(entry: dict[str, Any]) -> np.ndarray:
    """Regret per minute and job, shape (scenarios x seeds, blocks)."""
    return np.array([np.array(row["blocks"]) / row["minutes"] for row in entry["scenarios"]])


def bootstrap(entries: dict[str, dict[str, Any]]) -> np.ndarray:
    """Bootstrapped mean regret (draws, entries); a draw has the same blocks for all entries, which serve the same requests."""
    regret = np.array([per_minute(entry) for entry in entries.values()])
    _, runs, blocks = regret.shape
    chosen = np.random.default_rng(0).integers(blocks, size=(DRAWS, runs, blocks))
    return regret[:, np.arange(runs)[None, :, None], chosen].mean(axis=(2, 3)).T


def ranking(entries: dict[str, dict[str, Any]]) -> str:
    """A row per entry: rank and regret with 95 % intervals, regret by seed, decision time, scenarios with the least regret."""
    draws = bootstrap(entries)
    ranks = draws.argsort(axis=1).argsort(axis=1) + 1
    wins = _wins(entries)
    lines = [
        "| rank | entry | regret | public seeds | hidden seeds | decision | least regret in |",
        "| --- " * 7 + "|",
    ]
    for n, (name, entry) in enumerate(entries.items()):
        low, high = (int(rank) for rank in np.quantile(ranks[:, n], INTERVAL, method="nearest"))
        begin, end = np.quantile(draws[:, n], INTERVAL)
        failures = sum(part["failures"] for part in entry["score"].values())
        mean = f"{per_minute(entry).mean():.1%} ({begin:.1%} to {end:.1%})"
        seeds = [f"{entry['score'][kind]['regret']:.1%}" for kind in ("public", "hidden")]
        decision_ms = np.median([row["decision_ms_p50"] for row in entry["scenarios"]])
        rank = f"{n + 1} ({low} to {high})" if not failures else f"failed, would be {n + 1}"
        lines.append(
            f"| {rank} | {name} | {mean} | {' | '.join(seeds)} | {decision_ms:.1f} ms | {', '.join(wins[name])} |"
        )
    return "\n".join(lines)


def _by_scenario(entry: dict[str, Any]) -> dict[str, float]:
    """Scenario -> mean regret over its seeds."""
    rows = entry["scenarios"]
    return {
        name: np.mean([r["regret"] for r in rows if r["scenario"] == name]) for name in {r["scenario"]: 0 for r in rows}
    }


def _wins(entries: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    regret = {name: _by_scenario(entry) for name, entry in entries.items()}
    least = {one: min(of[one] for of in regret.values()) for one in next(iter(regret.values()))}
    return {name: [one for one in least if regret[name][one] == least[one]] for name in entries}


def by_scenario(entries: dict[str, dict[str, Any]]) -> str:
    """A row per scenario: the clairvoyant's lost utility and each entry's regret; the least regret is bold."""
    first, regret = next(iter(entries.values())), {name: _by_scenario(entry) for name, entry in entries.items()}
    lines = [f"| scenario | bound | {' | '.join(entries)} |", "| --- " * (2 + len(entries)) + "|"]
    for scenario in next(iter(regret.values())):
        bound = np.mean([row["bound"] / row["jobs"] for row in first["scenarios"] if row["scenario"] == scenario])
        values = [regret[name][scenario] for name in entries]
        cells = [f"**{value:.1%}**" if value == min(values) else f"{value:.1%}" for value in values]
        lines.append(f"| {scenario} | {bound:.1%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(measured: dict[str, Any]) -> str:
    """Simulated minutes per CPU second, by interval of the decisions and kind of action."""
    lines = ["| decisions | single requests | fluid |", "| --- " * 3 + "|"]
    for interval, tick_s in (("every minute", 60), ("every five minutes", 300)):
        for action, text in (("still", "replicas kept"), ("random", "random replicas")):
            rates = [measured["minutes_per_s"][f"{queue} {tick_s}"][action] for queue in ("requests", "fluid")]
            lines.append(f"| {interval}, {text} | {' | '.join(f'{rate:,.0f}' for rate in rates)} |")
    return "\n".join(lines)


def error(measured: dict[str, Any]) -> str:
    """Lost utility with single requests and with the fluid model, and the mean and absolute errors per job."""
    losses = measured["lost_utility"]
    policies = list(next(iter(losses.values())))
    lines = [f"| scenario | {' | '.join(policies)} |", "| --- " * (1 + len(policies)) + "|"]
    for scenario, row in losses.items():
        lines.append(f"| {scenario} | {' | '.join(f'{exact:.2f} -> {fluid:.2f}' for exact, fluid in row.values())} |")
    errors = np.array([(fluid - exact) / 10 for row in losses.values() for exact, fluid in row.values()])
    below = f"Error per job: mean {errors.mean():+.3f}, mean size {np.abs(errors).mean():.3f}, largest size "
    return "\n".join([*lines, "", f"{below}{np.abs(errors).max():.3f}."])


def listed() -> str:
    lines = ["| scenario | set | cores | what it is |", "| --- " * 4 + "|"]
    for one in scenarios().values():
        lines.append(f"| {one.name} | {'quick' if one.quick else 'all'} | {one.capacity} | {one.what} |")
    return "\n".join(lines)


def with_tables(page: str, entries: dict[str, dict[str, Any]]) -> str:
    """The page with its tables replaced."""
    tables = {"ranking": ranking(entries), "by scenario": by_scenario(entries), "scenarios": listed()}
    measured = json.loads(ENVIRONMENT.read_text())
    tables |= {"speed": speed(measured), "error": error(measured)}
    for name, table in tables.items():
        page = marked.with_table(page, f"{name}: docs/arena_tables.py writes this table", table)
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), kept()))
    print(PAGE)
