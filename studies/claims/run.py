"""Check each claim of docs/artifact.md from the raw traces, and print whether it holds.

    python -m studies.claims.run                  # the quick ones
    python -m studies.claims.run --all            # the paper's variant too
    python -m studies.claims.run --redistributed  # those that need no data but the repository's
    python -m studies.claims.run wins exact       # some of them

The claims on the published traces read one earlier result, the posterior data/posterior-paper.npz,
whose SHA-256 is checked; --posterior names another file, as written by stage 30. The exit status is
1 if a claim does not hold, and 2 if the traces are not there.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from faro_lib import forecast
from faro_lib.allocate import solve
from faro_lib.allocate.objectives import objective_of
from faro_lib.policies import PolicyContext, make
from faro_lib.registry import load_plugins
from faro_lib.simulate.measure import measure
from faro_lib.utility import UtilityTable
from faro_lib.workload import PUBLISHED, Job
from faro_lib.workload.tables import load_workload
from studies.comparison.run import compare
from studies.days.run import over_days, paired
from studies.forecast import scores
from studies.tables.pages import declaring, shown, text_of
from studies.tables.wording import markdown_lines

CAPACITIES = (36, 32, 16)
TRIALS = 5
BASELINES = ("FairShare", "Oneshot", "AIAD", "MArk")
OURS = ("Faro-Sum", "Faro-FairSum")
OBJECTIVES = ("Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum")
EDITION = tuple(f"Faro-{objective} (paper)" for objective in OBJECTIVES)
ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "studies" / "paper" / "published.py"  # registers EDITION
POSTERIOR = Path("data/posterior-paper.npz")
SHA256 = Path("data/posterior-paper.sha256")
AZURE, AZURE_JOBS = ROOT / "data/azure-2019.csv.gz", ROOT / "data/azure-2019-jobs.csv"
# A part of the run of config/wide.yaml that takes a minute.
DAY = 14
DAY_CAPACITIES = (24, 12)
DAY_TRIALS = 2
DAY_POLICIES = ("FairShare", "AIAD", "HPA", "Faro-Sum")
DAY_FORECASTER = "ar"


@dataclass(frozen=True)
class Row:
    what: str
    expected: str
    got: str
    holds: bool


class Inputs:
    """Inputs that the claims share, each computed at its first use."""

    def __init__(self, posterior: Path):
        self.posterior = posterior

    @cached_property
    def traces(self):
        return load_workload(PUBLISHED)

    @cached_property
    def context(self):
        forecaster = forecast.fit("bayes", self.traces, posterior=self.posterior)
        return PolicyContext(self.traces.jobs, forecaster, measure(self.traces.jobs))

    @cached_property
    def published(self) -> pd.DataFrame:
        table = pd.read_csv("data/published/published_main.csv")
        table = table.replace({"system": {"MArk/Cocktail/Barista": "MArk"}})
        return table[table["env"] == "simulation"].set_index(["system", "replicas"])

    def comparison(self, *policies: str, limit: bool = False) -> pd.DataFrame:
        """Summary rows of the policies at all capacities, in both conventions of lost utility.

        `limit` adds the clairvoyant limit as policy "limit".
        """
        workload = self.traces.workload()
        made = {name: make(name, self.context) for name in policies}
        options: dict = {"limit": limit, "published": True, "report": None}
        frames = []
        for capacity in CAPACITIES:
            tables = compare(workload, made, capacity, TRIALS, **options)
            frames.append(tables.summary)
            if limit:
                frames.append(tables.limit.assign(policy="limit"))
        return pd.concat(frames)


def baselines(inputs: Inputs) -> Iterator[Row]:
    """The simulator reproduces the published rows of the baseline policies."""
    yield from _beside_the_published(inputs, inputs.comparison(*BASELINES))


def edition(inputs: Inputs) -> Iterator[Row]:
    """The paper's variant of Faro reproduces its published rows."""
    load_plugins([PLUGIN])
    yield from _beside_the_published(inputs, inputs.comparison(*EDITION))


def _beside_the_published(inputs: Inputs, summary: pd.DataFrame) -> Iterator[Row]:
    for (policy, capacity), rows in summary.groupby(["policy", "capacity_cores"], sort=False):
        row = inputs.published.loc[policy.removesuffix(" (paper)"), capacity]
        mean, deviation = row["lost_cluster_utility_mean"], row["lost_cluster_utility_std"]
        within = max(0.05 * mean, 2 * deviation)
        got = rows["lost_utility_published"].mean()
        holds = abs(got - mean) <= within
        yield Row(f"{policy}, {capacity}", f"{mean:.3f} +- {within:.3f}", f"{got:.3f}", holds)


def wins(inputs: Inputs) -> Iterator[Row]:
    """Faro loses less utility than the published system, and never less than the limit."""
    summary = inputs.comparison(*OURS, limit=True)
    limits = summary[summary["policy"] == "limit"].set_index(["capacity_cores", "trial"])
    runs = summary[summary["policy"] != "limit"].groupby(["policy", "capacity_cores"], sort=False)
    for (policy, capacity), rows in runs:
        published = inputs.published.loc[policy, capacity]["lost_cluster_utility_mean"]
        lost = rows.set_index("trial")["lost_utility_published"]
        above = lost.mean() + stats.t.ppf(0.975, TRIALS - 1) * lost.std() / np.sqrt(TRIALS)
        got = f"{lost.mean():.3f}, at most {above:.3f}"
        yield Row(f"{policy}, {capacity}", f"< {published:.3f}", got, above < published)
        limit = limits.loc[capacity]["lost_utility"]
        least = (rows.set_index("trial")["lost_utility"] - limit).min()
        yield Row(f"{policy}, {capacity}, above the limit", ">= 0", f"{least:.3f}", least >= 0)


def forecasts(inputs: Inputs) -> Iterator[Row]:
    """The forecast of seven minutes is as accurate as the published network's, and calibrated."""
    table = pd.read_csv("data/published/published_forecast_rmse.csv").set_index("model")
    published = table["rmse_requests_per_min"]["N-HiTS"]
    samples, truth = scores.rolling(inputs.context.forecaster, inputs.traces.evaluation[0], n=200)
    rmse = float(scores.rmse(samples, truth))
    covered = float(scores.coverage(samples, truth))
    yield Row("RMSE, requests a minute", f"<= {published:.1f}", f"{rmse:.1f}", rmse <= published)
    yield Row("80 % interval", "0.77 to 0.83", f"{covered:.3f}", 0.77 <= covered <= 0.83)


def exact(_: Inputs) -> Iterator[Row]:
    """The solver finds the optimum: the same value as trying every allocation of small problems."""
    rng = np.random.default_rng(7)
    problems = 200
    for objective in ("Sum", "Fair", "FairSum"):
        same = sum(_same_as_enumeration(rng, objective) for _ in range(problems))
        yield Row(objective, f"{problems} of {problems}", f"{same} of {problems}", same == problems)


def _same_as_enumeration(rng: np.random.Generator, objective: str) -> bool:
    jobs = [Job(f"job {n}", weight=float(rng.integers(1, 4))) for n in range(4)]
    values = np.sort(rng.random((4, 6)).round(3), axis=1)
    budget = int(rng.integers(4, 13))
    found = solve(UtilityTable.from_values(jobs, values), budget, objective)
    weight = np.array([job.weight for job in jobs])

    def value(replicas) -> float:
        reached = values[np.arange(4), list(replicas)]
        return float(objective_of(objective).score(reached, weight, len(jobs)))

    every = (x for x in itertools.product(range(1, 6), repeat=4) if sum(x) <= budget)
    return bool(np.isclose(value(found.replicas), max(map(value, every)), atol=1e-6))


def recorded(_: Inputs) -> Iterator[Row]:
    """Every part of a page that is declared is what its recorded tables give."""
    for module, parts, _pictures in declaring():
        changed = [
            f"{part.name} in {part.page}"
            for part in parts
            if shown((ROOT / part.page).read_text(), module, part.name) != text_of(part)
        ]
        got = f"{', '.join(changed)} differs" if changed else "the same"
        yield Row(f"{module}, {len(parts)} parts", "the same", got, not changed)


def days(_: Inputs) -> Iterator[Row]:
    """A day of azure-2019 gives the recorded losses again, and Faro's is less than the rivals'."""
    traces = load_workload(str(AZURE), str(AZURE_JOBS))
    blocks = over_days(
        traces,
        [DAY],
        DAY_CAPACITIES,
        DAY_POLICIES,
        DAY_TRIALS,
        forecasters=(DAY_FORECASTER,),
        report=no_report,
    )
    leader = DAY_POLICIES[-1]
    got = paired(blocks, leader).query(f"day == '{DAY}' and policy in {DAY_POLICIES}")
    recorded = pd.read_csv(ROOT / "data/wide-run/azure-2019.csv").query(f"day == '{DAY}'")
    recorded = recorded.set_index(["policy", "capacity_cores"])["lost_utility"]
    for row in got.itertuples():
        what = f"{row.policy}, {row.capacity_cores} cores, day {DAY}"
        # The recorded rows of the leader alone are of several forecasters.
        name = f"{leader}, {DAY_FORECASTER}" if row.policy == leader else row.policy
        expected = recorded[name, row.capacity_cores]
        same = bool(np.isclose(row.lost_utility, expected, rtol=0.01))
        yield Row(what, f"{expected:.4f} +- 1 %", f"{row.lost_utility:.4f}", same)
        if row.policy != leader:
            more = f"{row.difference:.3f}, at least {row.low:.3f}"
            yield Row(f"{what}, minus {leader}", "> 0", more, row.low > 0)


def no_report(_: str) -> None:
    """Say nothing of progress."""


@dataclass(frozen=True)
class Claim:
    check: Callable[[Inputs], Iterator[Row]]
    minutes: float  # needed on two idle cores
    quick: bool = True
    needs_traces: bool = True  # the published ones, which are not in the repository


CLAIMS = {
    "exact": Claim(exact, 0.1, needs_traces=False),
    "recorded": Claim(recorded, 0.1, needs_traces=False),
    "days": Claim(days, 0.8, needs_traces=False),
    "forecasts": Claim(forecasts, 0.5),
    "baselines": Claim(baselines, 2),
    "wins": Claim(wins, 3),
    "edition": Claim(edition, 5, quick=False),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claims", nargs="*", help=", ".join(CLAIMS))
    parser.add_argument("--all", action="store_true", help="the slow ones too")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--redistributed", action="store_true", help="those without the traces")
    which.add_argument("--published", action="store_true", help="those on the published traces")
    parser.add_argument("--posterior", type=Path)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.claims if name not in CLAIMS]
    if unknown:
        parser.error(f"unknown claim {unknown[0]!r}; accepted: {', '.join(CLAIMS)}")
    chosen = arguments.claims or [
        name
        for name, claim in CLAIMS.items()
        if (claim.quick or arguments.all)
        and not (claim.needs_traces and arguments.redistributed)
        and not (not claim.needs_traces and arguments.published)
    ]
    inputs = Inputs(arguments.posterior or POSTERIOR)
    if any(CLAIMS[name].needs_traces for name in chosen):
        if arguments.posterior is None and not _is_as_recorded(POSTERIOR):
            parser.error(f"{POSTERIOR}: its SHA-256 is not that of {SHA256}")
        try:
            inputs.traces  # noqa: B018
        except OSError as error:
            parser.error(f"{error}; --redistributed needs no traces")
    every = True

    def checked():
        nonlocal every
        for name, claim in CLAIMS.items():
            if name not in chosen:
                continue
            began = time.monotonic()
            for row in claim.check(inputs):
                every = every and row.holds
                yield name, row.what, row.expected, row.got, "yes" if row.holds else "NO"
            minutes = (time.monotonic() - began) / 60
            yield name, "minutes", f"{claim.minutes:g}", f"{minutes:.1f}", ""

    for line in markdown_lines(["claim", "what", "expected", "got", "holds"], checked()):
        print(line, flush=True)
    return 0 if every else 1


def _is_as_recorded(posterior: Path) -> bool:
    digest = hashlib.sha256(posterior.read_bytes()).hexdigest()
    return digest == SHA256.read_text().split()[0]


if __name__ == "__main__":
    raise SystemExit(main())
