"""The score of a policy in the arena: lost utility and regret by scenario.

A score has hashes of the code and the inputs.
"""

import hashlib
import platform
import secrets
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import faro_lib
from faro_lib.control import PolicyFailed
from faro_lib.experiments.trials import Report
from faro_lib.metrics.measures import lost_utility, minute_utility, summarize
from faro_lib.metrics.paired import unit_interval
from faro_lib.policies import FACTORIES, factory_of, make
from faro_lib.registry import load_plugins
from faro_lib.simulate import simulate
from faro_lib.simulate.run import Run
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.advise.arena.scenarios import Instance, instance, scenario_of

PROBE_MINUTES = 5
BLOCKS = 12  # blocks per day, the units of intervals
HIDDEN_SEEDS = 2**31 - 1  # largest hidden seed; the smallest is 1
# Measured durations, which differ from run to run.
MEASURED = ("decision_ms_p50", "decision_ms_p99")


def policy_of(entry: str) -> str:
    """Return a policy's name.

    `entry` is a known name, or a .py file that registers one policy; ValueError if it is neither.
    """
    if not entry.endswith(".py"):
        factory_of(entry)
        return entry
    # Register the plugins in FARO_PLUGINS first, so that they do not count as part of `entry`.
    load_plugins()
    before = set(FACTORIES)
    load_plugins([entry])
    names = [name for name in FACTORIES if name not in before]
    if len(names) != 1:
        need = 'an entry is one file with one `register("Name")(...)`, as in docs/arena.md'
        raise ValueError(f"{entry}: registers {len(names)} policies; {need}")
    return names[0]


class EntryFailed(ValueError):
    """A decision of an entry failed, so the entry has no score."""


def library_files() -> list[Path]:
    """The files whose hash a score has: `faro_lib` and the arena, because both decide scores.

    The rest of `faro_ops` does not.
    """
    folders = (Path(faro_lib.__file__).parent, Path(__file__).parent)
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def score(
    policy: str,
    scenarios: Iterable[str],
    hidden_seed: int | None = None,
    *,
    public_only: bool = False,
    file: str | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """The score of a registered policy as a dictionary for JSON.

    It has a row for each scenario and seed, and the mean regret.

    hidden_seed : a seed that policies cannot be tuned to; None draws a new one, a number reproduces
        an earlier score.
    public_only : leave the hidden seed out, which is enough for tuning but not for a submission.
    file : the plugin file that registers the policy; the result has its hash.

    Raises EntryFailed at the first decision that raises an exception or returns an invalid plan.
    """
    hidden = 1 + secrets.randbelow(HIDDEN_SEEDS) if hidden_seed is None else hidden_seed
    rows = []
    for name in scenarios:
        scenario = scenario_of(name)
        seeds = {"public": scenario.public_seed}
        if not public_only:
            seeds["hidden"] = hidden
        for kind, seed in seeds.items():
            try:
                row = scored(policy, instance(name, seed))
            except PolicyFailed as failure:
                entry = Path(file or policy).name
                where = f"no score in {name} ({kind} seed {seed})"
                raise EntryFailed(f"{entry}: {where}: {failure}") from None
            keys = {"scenario": name, "quick": scenario.quick, "kind": kind, "seed": seed}
            rows.append(keys | row)
            found = f"regret {row['regret']:.2%}, lost utility {row['lost_utility']:.3f}"
            report(f"{policy} in {name} ({kind} seed): {found}")
    kinds = dict.fromkeys(str(row["kind"]) for row in rows)
    scores = {kind: overall([row for row in rows if row["kind"] == kind]) for kind in kinds}
    for kind, one in scores.items():
        interval = f"{one['low']:.1%} to {one['high']:.1%}"
        report(f"{policy}, {kind} seeds: mean regret {one['regret']:.1%} ({interval})")
    return {
        "policy": policy,
        "file": file and Path(file).name,
        "hidden_seed": None if public_only else hidden,
        "sha256": _hashes(file),
        "versions": _versions(),
        "score": scores,
        "scenarios": rows,
    }


def _hashes(file: str | None) -> dict[str, str]:
    contents = {"library": b"".join(path.read_bytes() for path in library_files())}
    if file:
        contents["file"] = Path(file).read_bytes()
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _versions() -> dict[str, str]:
    of_packages = {name: version(name) for name in ("numpy", "numba", "scipy")}
    return {"python": platform.python_version()} | of_packages


def scored(policy: str, on: Instance) -> dict[str, Any]:
    """Measures of one run, such as the mean regret with a 95 % interval.

    The regret of a minute is the utility of the bound (`Instance.bound`) minus the policy's,
    averaged over jobs. The mean regret is over all minutes of the day, and `blocks` is the total
    regret in each of BLOCKS parts of the day. Where jobs may share replicas, a policy that places
    no models gets the same requests and cores with isolated replicas. Raises PolicyFailed if a
    decision fails.
    """
    jobs = len(on.workload.jobs)
    alone = on.scenario.pools > 0 and not places_models(policy, on)
    run = _run(policy, on.isolated if alone else on)
    regret = np.nansum(on.bound - minute_utility(run), axis=0)[:-1] / jobs  # (minutes,)
    parts = np.array_split(regret, BLOCKS)
    blocks = [float(part.sum()) for part in parts]
    minutes = [len(part) for part in parts]
    mean, low, high = unit_interval(np.array([[blocks]]), np.array([[minutes]]))
    measures = summarize(run)
    row: dict[str, Any] = {
        name: measures[name] for name in ("lost_utility", "slo_violation_rate", *MEASURED)
    }
    return row | {
        "regret": mean,
        "low": low,
        "high": high,
        "bound": lost_utility(on.bound),
        "blocks": blocks,
        "minutes": minutes,
        "jobs": jobs,
        "capacity_cores": on.scenario.capacity,
        "inputs_sha256": on.sha256,
    }


def places_models(policy: str, on: Instance) -> bool:
    """Whether a plan of the policy's first PROBE_MINUTES minutes places models in replicas."""
    return any(_run(policy, on, PROBE_MINUTES).decisions.placement)


def _run(policy: str, on: Instance, minutes: int | None = None) -> Run:
    """The run of a policy, or its first minutes. Raises PolicyFailed if a decision fails."""
    made = make(policy, on.context)
    if made.tick_s > MINUTE_S:
        problem = f"tick_s={made.tick_s:g}; the arena accepts at most {MINUTE_S:g}"
        raise ValueError(f"policy {policy!r}: {problem}")
    workload = on.workload.between(0, minutes) if minutes else on.workload
    with warnings.catch_warnings(action="error", category=PolicyFailed):
        return simulate(
            workload,
            made,
            on.scenario.capacity,
            on.seed,
            draws=None if minutes else on.draws,
            serving_model=on.scenario.serving_model,
            capacity_steps=on.scenario.capacity_steps,
            make_cluster=on.scenario.make_cluster,
        )


def overall(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean regret over scenarios with its 95 % interval, and the largest p99 decision time.

    All scenarios have the same weight.
    """
    of_minute = np.array([[np.array(row["blocks"]) / row["minutes"]] for row in rows])
    mean, low, high = unit_interval(of_minute, np.ones_like(of_minute))
    return {
        "regret": mean,
        "low": low,
        "high": high,
        "decision_ms_p99": max(row["decision_ms_p99"] for row in rows),
    }


def compared(mine: dict[str, Any], rival: dict[str, Any]) -> dict[str, Any]:
    """The mean regret of one score minus that of another, by scenario and over all of them.

    Only runs that both have count, that is, the same scenario and seed. Intervals are paired. In a
    scenario, their units are blocks of the day; over all scenarios, the worlds (seeds) of each
    scenario, or blocks if there is one. Negative: `mine` loses less. Raises ValueError if no run is
    common, or if the inputs of a common run differ.
    """
    of_rival = {(row["scenario"], row["seed"]): row for row in rival["scenarios"]}
    differences: dict[str, list[np.ndarray]] = {}
    for row in mine["scenarios"]:
        other = of_rival.get((row["scenario"], row["seed"]))
        if other is None:
            continue
        if row["inputs_sha256"] != other["inputs_sha256"]:
            raise ValueError(
                f"{rival['policy']} was scored on other inputs in {row['scenario']}, so that the "
                "difference means nothing; score it again"
            )
        of_blocks = np.array(row["blocks"]) - np.array(other["blocks"])
        differences.setdefault(row["scenario"], []).append(of_blocks / row["minutes"])
    if not differences:
        raise ValueError(f"no run is common with {rival['policy']}; give its hidden seed")

    def over_units(per_minute: list[Any]) -> dict[str, float]:
        units = np.array(per_minute)[:, None, :]  # (strata, 1, units)
        mean, low, high = unit_interval(units, np.ones_like(units))
        return {"difference": mean, "low": low, "high": high}

    strata: list[Any]
    worlds = min(len(runs) for runs in differences.values())
    if worlds > 1:
        strata = [[run.mean() for run in runs[:worlds]] for runs in differences.values()]
    else:
        strata = [run for runs in differences.values() for run in runs]
    return {
        "policy": rival["policy"],
        "file": rival["file"],
        "sha256": rival["sha256"],
        **over_units(strata),
        "scenarios": {name: over_units(runs) for name, runs in differences.items()},
    }
