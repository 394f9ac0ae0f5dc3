"""Compare our readings of other projects' autoscalers with their own code, tick by tick.

    python benchmarks/own_code.py --build      # the Go program, from modules; kept in a cache
    python benchmarks/own_code.py              # all autoscalers, on the quick set of the arena
    python benchmarks/own_code.py KPA --scenarios steady-v1 --public
    python benchmarks/own_code.py --built      # the readings that have all rules of the code

Each autoscaler runs twice per scenario and seed: our reading decides and the own code is shown the
same observations, so that their targets can be compared; then the own code decides by itself.
data/arena gets own-code.csv and own-code-differences.csv, whose rows replace those of the same run.
With `--built`, the readings of studies/arena/as_built.py decide, and data/arena gets
own-code-built.csv. docs/arena_tables.py writes these tables into the page.
"""

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.policies import FACTORIES, Plan, Policy, make
from faro_lib.registry import load_plugins
from faro_ops.advise.arena.scenarios import instance, scenario_of, scenarios
from faro_ops.advise.arena.scoring import scored
from studies.arena.as_built import BUILT
from studies.arena.own_code import OWN, SOURCES, OwnCode, program, tick_of
from studies.frames import write_csv

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "data/arena"
HIDDEN_SEED = 645274250  # of the entries in data/arena
SHOWN = 5  # differences that are kept of each run
READINGS = ("hpa_behavior.py", "keda.py", "knative.py")
# As cluster/offline/programs.sh builds, so that both share what is compiled.
BUILD = ("-mod=readonly", "-p=1", "-trimpath", "-buildvcs=false")


def build() -> None:
    """Build the program unless it exists; prints the seconds and where it is."""
    path = program()
    began = time.perf_counter()
    if not path.exists():
        go = shutil.which("go")
        if not go:
            raise SystemExit("own_code.py: go is missing; see https://go.dev/doc/install")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        flags = ("-gcflags=all=-l -dwarf=false", "-ldflags=-s -w")
        settings = {"CGO_ENABLED": "0", "GOFLAGS": " ".join(BUILD), "GOWORK": "off"}
        command = ["nice", go, "build", *flags, "-o", str(partial), "."]
        done = subprocess.run(command, cwd=SOURCES, env=dict(os.environ) | settings)
        if done.returncode:
            raise SystemExit(done.returncode)
        partial.rename(path)
    print(f"{path}: {time.perf_counter() - began:.0f} s", flush=True)


@dataclass(frozen=True)
class Beside:
    """A reading that decides, and the own code, which is asked and not followed."""

    reading: Policy
    own: OwnCode
    rows: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.reading.name

    @property
    def tick_s(self) -> float:
        return self.reading.tick_s

    def initial(self, jobs, capacity):
        return self.reading.initial(jobs, capacity)

    def start(self, jobs):
        return self.reading.start(jobs), self.own.start(jobs)

    def decide(self, state, observation) -> tuple[Any, Plan]:
        ours, theirs = state
        ours, plan = self.reading.decide(ours, observation)
        theirs, other = self.own.decide(theirs, observation)
        self.versions.update(theirs.versions)
        tick = tick_of(observation, theirs.jobs.busy_s)
        for job, (reading, own) in enumerate(zip(plan.target, other.target)):
            row = {name: tick[name][job] for name in ("target", "running", "starting")}
            row |= {name: tick[name][job] for name in ("rate_rps", "ongoing")}
            row |= {"reading": int(reading), "own": int(own)}
            self.rows.append({"now_s": observation.now_s, "job": job} | row)
        return (ours, theirs), plan


def built(name: str, scenario: str, kind: str, seed: int) -> dict[str, Any]:
    """A row of own-code-built.csv."""
    beside = Beside(BUILT[name], OWN[name]())
    with registered("beside", beside):
        run = scored("beside", instance(scenario, seed))
    ticks = pd.DataFrame(beside.rows)
    equal = int((ticks["reading"] == ticks["own"]).sum())
    key = {"autoscaler": name, "scenario": scenario, "kind": kind, "seed": seed}
    return key | {"decisions": len(ticks), "equal": equal, "regret": run["regret"]}


@contextmanager
def registered(name: str, policy: Policy) -> Iterator[None]:
    """Register a policy for a while."""
    FACTORIES[name] = lambda context: policy
    try:
        yield
    finally:
        del FACTORIES[name]


def compared(name: str, scenario: str, kind: str, seed: int) -> tuple[dict, pd.DataFrame]:
    """A row of own-code.csv, and the first decisions that differ."""
    on = instance(scenario, seed)
    beside = Beside(make(name, on.context), OWN[name]())
    with registered("beside", beside):
        reading = scored("beside", on)
    own = scored(beside.own.name, on)
    ticks = pd.DataFrame(beside.rows)
    differs = ticks["reading"] != ticks["own"]
    changes = (ticks["reading"] != ticks["target"]) | (ticks["own"] != ticks["target"])
    key = {"autoscaler": name, "scenario": scenario, "kind": kind, "seed": seed}
    row = key | {
        "decisions": len(ticks),
        "equal": int((~differs).sum()),
        "changes": int(changes.sum()),  # decisions in which either changes the replicas
        "equal_changes": int((changes & ~differs).sum()),
        "largest_difference": int(np.abs(ticks["reading"] - ticks["own"]).max()),
        "regret_reading": reading["regret"],
        "regret_own": own["regret"],
        "lost_utility_reading": reading["lost_utility"],
        "lost_utility_own": own["lost_utility"],
        "decision_ms_own": own["decision_ms_p50"],
        "versions": ", ".join(f"{name} {version}" for name, version in beside.versions.items()),
    }
    first = ticks[differs].head(SHOWN)
    return row, first.assign(**key)[[*key, *ticks.columns]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(OWN), help=", ".join(OWN))
    parser.add_argument("--build", action="store_true", help="build the Go program and end")
    quick = [one.name for one in scenarios().values() if one.quick]
    parser.add_argument("--scenarios", nargs="*", default=quick)
    parser.add_argument("--public", action="store_true", help="leave the hidden seed out")
    parser.add_argument("--built", action="store_true", help="the readings with the code's rules")
    parser.add_argument("--out", type=Path, default=KEPT)
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in OWN]
    if unknown:
        parser.error(f"unknown autoscaler {unknown[0]!r}; accepted: {', '.join(OWN)}")
    build()
    if options.build:
        return
    load_plugins([str(SOURCES.parent / file) for file in READINGS])
    for scenario in options.scenarios:
        seeds = {"public": scenario_of(scenario).public_seed}
        if not options.public:
            seeds["hidden"] = HIDDEN_SEED
        rows, first = [], []
        for kind, seed in seeds.items():
            for name in options.names:
                if options.built:
                    row = built(name, scenario, kind, seed)
                    rows.append(row)
                    where = f"{name} in {scenario} ({kind} seed)"
                    print(f"{where}: {row['equal']} of {row['decisions']} are equal", flush=True)
                    continue
                row, differences = compared(name, scenario, kind, seed)
                rows.append(row)
                first.append(differences)
                print(
                    f"{name} in {scenario} ({kind} seed): {row['equal'] / row['decisions']:.2%} of "
                    f"{row['decisions']:,} targets are equal; regret {row['regret_reading']:.2%} "
                    f"by our reading, {row['regret_own']:.2%} by its own code",
                    flush=True,
                )
        table = "own-code-built.csv" if options.built else "own-code.csv"
        keep(pd.DataFrame(rows), options.out / table)
        if first:
            differences = pd.concat(first, ignore_index=True)
            keep(differences, options.out / "own-code-differences.csv")


def keep(table: pd.DataFrame, path: Path) -> None:
    """Write the rows, and keep those of other autoscalers, scenarios and seeds."""
    key = ["autoscaler", "scenario", "kind"]
    if path.exists():
        before = pd.read_csv(path)
        new = pd.MultiIndex.from_frame(table[key].drop_duplicates())
        old = before[~pd.MultiIndex.from_frame(before[key]).isin(new)]
        table = pd.concat([old, table], ignore_index=True)
    path.parent.mkdir(exist_ok=True)
    write_csv(table, path)
    print(path, flush=True)


if __name__ == "__main__":
    main()
