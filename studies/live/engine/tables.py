"""The tables of docs/engine.md."""

from __future__ import annotations

from typing import Any

import pandas as pd

from studies.tables.pages import Part
from studies.tables.wording import markdown_table

KINDS = ("twin", "paired", "own")  # of twins
MILLI = 1e3


def finding(profile: dict[str, Any]) -> str:
    """What `faro profile` found, as sentences."""
    replica = profile["replica"]
    steps = ", ".join(f"`{name}` {replica[name]:.2g}" for name in ("alpha_s", "beta_s", "gamma_s"))
    return (
        f"The kind is `{profile['kind']}` (verdict: {profile['verdict']}), with {steps} and "
        f"`max_sequences` {replica['max_sequences']}; a replica sustains "
        f"{profile['capacity_rps']:.2g} requests/s. During the profile other programs used "
        f"{profile['other_cpu']:.1f} of the two processors, and llama.cpp was "
        f"{profile['drift']:.2f} times as slow at its end as at its beginning. A new replica "
        f"served after {profile['cold_start_s']:.1f} s, of which loading the model took "
        f"{profile['load_s']:.2f} s."
    )


def timings(own: pd.DataFrame) -> str:
    """A row per quantity: llama.cpp's own times, idle and in service, and the profile's."""
    names = {"step": "step, {} at once", "prompt": "step with prompts of about {} tokens"}
    rows = [
        (
            names[one.quantity].format(one.of),
            f"{MILLI * one.idle:.1f}",
            f"{MILLI * one.seconds:.1f}",
            f"{one.steps}",
            f"{MILLI * one.profile:.1f}",
            f"{one.profile / one.seconds:.2f}",
        )
        for one in own.itertuples()
    ]
    heads = ["time of", "idle (ms)", "in service (ms)", "steps", "`faro profile` (ms)", "ratio"]
    return markdown_table(heads, rows, right=heads[1:])


def twins(runs: pd.DataFrame) -> str:
    """A row per run: p99 latencies and throughput, live and the three twins relative to them."""
    rows = []
    for one in runs.sort_values(["load", "seed"]).to_dict("records"):
        ratios = [
            ", ".join(f"{one[f'{twin}_{name}'] / one[f'live_{name}']:.2f}" for twin in KINDS)
            for name in ("first_token", "per_token", "rps")
        ]
        live = (
            f"{one['live_first_token']:.2f}",
            f"{MILLI * one['live_per_token']:.0f}",
            f"{one['live_rps']:.2f}",
        )
        cells = [cell for pair in zip(live, ratios) for cell in pair]
        engine = f"{one['slower']:.2f}, {one['drift']:.2f}"
        rows.append((f"{one['load']:.0%}", one["requests"], *cells, engine))
    heads = ["load", "requests", "first token (s)", "twins", "per token (ms)", "twins"]
    heads += ["requests/s", "twins", "engine slower, drift"]
    return markdown_table(heads, rows, right=["load", "requests"])


def verdict(own: pd.DataFrame, runs: pd.DataFrame) -> str:
    """In how many cases the profile and each twin are within their limits, as sentences."""
    off = (own["profile"] / own["seconds"] - 1).abs()
    parts = [f"The profile is within 10 % of {(off <= 0.1).sum()} of {len(off)} of these times."]
    words = {"first_token": "p99 to the first token", "per_token": "p99 per later token"}
    names = {"twin": "as profiled", "paired": "at the engine's speed", "own": "with its own steps"}
    for twin, name in names.items():
        within = []
        for quantity, word in (*words.items(), ("rps", "throughput")):
            limit = 0.1 if quantity == "rps" else 0.15
            ratio = runs[f"{twin}_{quantity}"] / runs[f"live_{quantity}"]
            count = int(((ratio - 1).abs() <= limit).sum())
            within.append(f"{word} {count} (median {ratio.median():.2f})")
        parts.append(f"Twin {name}, of {len(runs)} runs within the limits: {', '.join(within)}.")
    return " ".join(parts)


def outcome(runs: pd.DataFrame) -> str:
    """What came of the run, as sentences."""
    summary = runs.iloc[0]
    return (
        f"Of {summary['requests']:.0f} requests {summary['served']:.0f} were served, "
        f"{summary['dropped']:.0f} dropped and {summary['failed']:.0f} failed; "
        f"{summary['met_share']:.1%} of those served met both limits. The goodput was "
        f"{summary['goodput_rps']:.2f} requests/s by the clients and "
        f"{summary['observed_goodput_rps']:.2f} by `faro run`. Other programs used "
        f"{summary['other_cpu']:.1f} of the two processors."
    )


PAGE = "docs/engine.md"
PROFILE, OWN, TWINS, SUMMARY = (
    f"data/recorded-engine/{name}"
    for name in ("profile.json", "own-timings.csv", "twins.csv", "scale-summary.csv")
)
PARTS = [
    Part(PAGE, "profile", [PROFILE], finding),
    Part(PAGE, "own timings", [OWN], timings),
    Part(PAGE, "twins", [TWINS], twins),
    Part(PAGE, "verdict", [OWN, TWINS], verdict),
    Part(PAGE, "run", [SUMMARY], outcome),
]
