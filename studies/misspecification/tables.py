"""The tables of docs/learning.md, and the picture of its losses."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.metrics.paired import unit_interval
from studies.live.agreement import LIVE, SIMULATION
from studies.live.learning import LEARNED_BY, SIMULATED, SLOW, TOLERANCE, learned_minute
from studies.misspecification.figures import finding, lost_by_world
from studies.misspecification.rivals import SEARCHED, STATIC
from studies.misspecification.world import (
    ASSUMING,
    BLOCK_MINUTES,
    FAROS,
    KNOWING,
    LEARNING,
    RIVALS,
)
from studies.tables.pages import Part, Picture
from studies.tables.wording import and_list, markdown_table

PLATFORMS = {
    "ray": "Ray Serve",
    "deployments": "Deployments",
    "deployments-random": "Deployments, random",
}
SHOWN_MINUTES = (2, 5, 10, 12)  # of the live trials
ROLL_OUT, NOON = "roll-out at noon", 180  # the published day has 360 minutes
SPREAD = "spread twice as large"
COLUMNS = {
    ASSUMING: "believes",
    LEARNING: "learns",
    KNOWING: "knows",
    "HPA": "HPA",
    "KEDA, queue": "KEDA",
    STATIC: "Static",
}
OTHERS = [one for one in (*RIVALS, *SEARCHED) if one not in COLUMNS]
LIVE_COLUMNS = {LEARNING: "learns", KNOWING: "knows", ASSUMING: "believes"}


def table(runs: pd.DataFrame) -> str:
    """A row for each workload, world and capacity; losses are means over trials.

    The best rival of each row is bold. The column `others` has the best of OTHERS.
    """
    lines = []
    for (workload, world, cores), part in runs.groupby(
        ["workload", "world", "capacity_cores"], sort=False
    ):
        mean = part.groupby("policy")["lost_later"].mean()
        best = mean.drop(list(FAROS)).idxmin()
        other = mean.reindex(OTHERS).idxmin()
        difference, low, high = against(part, best)
        lines.append(
            (
                workload,
                world,
                f"{cores:g}",
                part["trial"].nunique(),
                *(cell(mean, policy, best) for policy in COLUMNS),
                f"{cell(mean, other, best)} {other}",
                f"{difference:+.3f} ({low:+.3f} to {high:+.3f})",
            )
        )
    heads = ["workload", "world", "cores", "trials", *COLUMNS.values(), "others"]
    heads.append("learns minus best rival")
    if runs["workload"].nunique() == 1:  # the page says which
        heads = heads[1:]
        lines = [line[1:] for line in lines]
    return markdown_table(heads, lines, right=heads[1:])


def cell(mean: pd.Series, policy: str, best: str) -> str:
    """The mean loss of a policy, bold if it is the `best` rival."""
    if policy not in mean:
        return "-"
    return f"**{mean[policy]:.3f}**" if policy == best else f"{mean[policy]:.3f}"


def against(runs: pd.DataFrame, rival: str) -> tuple[float, float, float]:
    """Mean difference per minute of LEARNING minus `rival`, and its interval from blocks."""
    blocks = [name for name in runs if name.startswith("lost_") and name[5:].isdigit()]
    by_policy = runs.set_index(["policy", "trial"])[blocks].dropna(axis=1)
    differences = (by_policy.loc[LEARNING] - by_policy.loc[rival]).to_numpy()
    return unit_interval(differences[None], np.full(differences[None].shape, BLOCK_MINUTES))


def spread_finding(runs: pd.DataFrame) -> str:
    """What the policy that learns loses where means are right and only the spread is wrong."""
    of_world = runs[(runs["workload"] == "published") & (runs["world"] == SPREAD)]
    parts = []
    for cores, part in of_world.groupby("capacity_cores", sort=False):
        lost = part.groupby("policy")["lost_later"].mean()
        error = part["learned_error"].mean()  # NaN for the policies that do not learn
        parts.append(
            f"With {cores:g} cores, the learned factor is wrong by {error:.0%} (median), and Faro "
            f"loses {lost[LEARNING]:.3f} instead of {lost[ASSUMING]:.3f}."
        )
    return textwrap.fill(" ".join(parts), 100)


def live_tables(folder: Path) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Platform -> (learned factors, runs) of the live trials that are recorded in a folder."""
    return {
        platform: tuple(
            pd.read_csv(folder / f"{platform}-{name}.csv") for name in ("factors", "runs")
        )
        for platform in PLATFORMS
    }


def live_table(recorded: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> str:
    """A row for each trial on each platform, and for its simulation."""
    rows = []
    for platform, (factors, runs) in recorded.items():
        missed = runs.pivot(index=["trial", "environment"], columns="policy", values="missed_share")
        for trial, environment in missed.index.sort_values():
            of_run = factors[(factors["trial"] == trial) & (factors["environment"] == environment)]
            is_slow = of_run["job"] == SLOW
            slow = of_run[is_slow].set_index("minute", drop=False)
            others = of_run[~is_slow & (of_run["minute"] == SHOWN_MINUTES[-1])]["factor"]
            since = learned_minute(slow, TOLERANCE[platform])
            rows.append(
                (
                    PLATFORMS[platform],
                    trial + 1,
                    environment,
                    ", ".join(f"{slow['factor'][minute]:.2f}" for minute in SHOWN_MINUTES),
                    f"{since:.0f} (±{TOLERANCE[platform]:.0%})" if since < np.inf else "never",
                    " and ".join(f"{factor:.2f}" for factor in others),
                    *(f"{missed.loc[(trial, environment), policy]:.1%}" for policy in LIVE_COLUMNS),
                )
            )
    heads = [
        "platform",
        "trial",
        "run",
        f"factor after {and_list(SHOWN_MINUTES)} min",
        "right from minute",
        f"other factors after {SHOWN_MINUTES[-1]} min",
        *(f"missed, {name}" for name in LIVE_COLUMNS.values()),
    ]
    return markdown_table(heads, rows, right=heads[3:])


def live_finding(recorded: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> str:
    """Four sentences: when it is learned, who misses how much, and what the simulator says.

    The last is about a balancer that chooses at random, which the simulator does not have.
    """
    learned = []
    for platform in SIMULATED:
        factors, _ = recorded[platform]
        slow = factors[(factors["environment"] == LIVE) & (factors["job"] == SLOW)]
        tolerance = TOLERANCE[platform]
        minutes = [learned_minute(one, tolerance) for _, one in slow.groupby("trial")]
        right = sum(minute <= LEARNED_BY for minute in minutes)
        learned.append(
            f"within {tolerance:.0%} on {PLATFORMS[platform]} in {right} of {len(minutes)} trials"
        )
    runs = pd.concat([recorded[name][1].assign(platform=name) for name in SIMULATED])
    missed = runs.pivot(
        index=["platform", "trial", "policy"], columns="environment", values="missed_share"
    )
    by_policy = missed[LIVE].groupby("policy").agg(["min", "max"])
    shares = [
        f"{low:.1%} to {high:.1%} if it {name}"
        for low, high, name in (
            (*by_policy.loc[policy], name) for policy, name in LIVE_COLUMNS.items()
        )
    ]
    apart = (missed[LIVE] - missed[SIMULATION]).abs().max()
    at_random, _ = recorded["deployments-random"]
    last = at_random[at_random["minute"] == SHOWN_MINUTES[-1]]
    slow, others = last[last["job"] == SLOW]["factor"], last[last["job"] != SLOW]["factor"]
    return (
        f"After at most {LEARNED_BY} minutes, the factor of the slow service is right and stays "
        f"so: {and_list(learned)}. From then on, Faro misses the SLO of {and_list(shares)}. The "
        f"simulations differ from this by at most {100 * apart:.1f} percentage points. "
        f"Behind a balancer that chooses pods at random, requests wait longer, and Faro "
        f"takes that for slower services: after {SHOWN_MINUTES[-1]} minutes, the factor is "
        f"{slow.min():.2f} to {slow.max():.2f} for the slow service, and "
        f"{others.min():.2f} to {others.max():.2f} for the others."
    )


def published(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["workload"] == "published"]


def in_every_world(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the policies that all worlds and capacities have."""
    cases = runs.groupby("policy")[["world", "capacity_cores"]].apply(
        lambda of_policy: len(of_policy.drop_duplicates())
    )
    return runs[runs["policy"].isin(cases[cases == cases.max()].index)]


PAGE = "docs/learning.md"
RUNS = "data/recorded-misspecification/runs.csv"
TRIALS = "data/recorded-learning"
PARTS = [
    Part(PAGE, "losses", [RUNS], table),
    Part(PAGE, "spread", [RUNS], spread_finding),
    Part(PAGE, "live", [TRIALS], lambda folder: live_table(live_tables(folder))),
    Part(PAGE, "live finding", [TRIALS], lambda folder: live_finding(live_tables(folder))),
    Part(PAGE, "finding", [RUNS], lambda runs: finding(published(runs))),
]
PICTURES = [
    Picture(
        "docs/images/misspecification.png",
        [RUNS],
        lambda runs: lost_by_world(in_every_world(published(runs))),
    )
]
