"""The score of a policy in the arena: lost utility and regret by scenario, with hashes of the code and the inputs."""

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
from faro_lib.metrics.paired import block_bootstrap
from faro_lib.policies import FACTORIES, factory_of, make
from faro_lib.registry import load_plugins
from faro_lib.simulate import simulate
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.arena.scenarios import Instance, instance, scenario_of

BLOCKS = 12  # blocks per day in the bootstrap
HIDDEN_SEEDS = 2**31 - 1  # largest hidden seed; the smallest is 1
MEASURED = (
    "decision_ms_p50",
    "decision_ms_p99",
)  # measured durations, which differ from run to run


def policy_of(entry: str) -> str:
    """Return a policy's name. `entry` is a known name or a .py file that registers one policy, else ValueError."""
    if not entry.endswith(".py"):
        factory_of(entry)
        return entry
    # register the plugins in FARO_PLUGINS first, so that they do not count as part of `entry`
    load_plugins()
    before = set(FACTORIES)
    load_plugins([entry])
    if len(names := [name for name in FACTORIES if name not in before]) != 1:
        need = 'an entry is one file with one `register("Name")(...)`, as in docs/arena.md'
        raise ValueError(f"{entry}: registers {len(names)} policies; {need}")
    return names[0]


def score(
    policy: str,
    scenarios: Iterable[str],
    hidden_seed: int | None = None,
    *,
    public_only: bool = False,
    file: str | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """The score of a registered policy as a dictionary for JSON: a row for each scenario and seed, and the mean regret.

    hidden_seed : a seed that policies cannot be tuned to; None draws a new one, a number reproduces
        an earlier score.
    public_only : leave the hidden seed out, which is enough for tuning but not for a submission.
    file : the plugin file that registers the policy; the result has its hash.
    """
    hidden, rows = 1 + secrets.randbelow(HIDDEN_SEEDS) if hidden_seed is None else hidden_seed, []
    for name in scenarios:
        seeds = {"public": scenario_of(name).public_seed} | (
            {} if public_only else {"hidden": hidden}
        )
        for kind, seed in seeds.items():
            row = scored(policy, instance(name, seed))
            rows.append({"scenario": name, "kind": kind, "seed": seed} | row)
            found = f"regret {row['regret']:.2%}, lost utility {row['lost_utility']:.3f}"
            failed = (
                f"; {row['failures']} decisions failed, first: {row['first_failure']}"
                if row["failures"]
                else ""
            )
            report(f"{policy} in {name} ({kind} seed): {found}{failed}")
    kinds = dict.fromkeys(str(row["kind"]) for row in rows)
    scores = {kind: overall([row for row in rows if row["kind"] == kind]) for kind in kinds}
    for kind, one in scores.items():
        report(
            f"{policy}, {kind} seeds: mean regret {one['regret']:.1%} ({one['low']:.1%} to {one['high']:.1%})"
        )
    library = b"".join(
        path.read_bytes() for path in sorted(Path(faro_lib.__file__).parent.rglob("*.py"))
    )
    contents = {"library": library} | ({"file": Path(file).read_bytes()} if file else {})
    versions = {"python": platform.python_version()} | {
        name: version(name) for name in ("numpy", "numba", "scipy")
    }
    return {
        "policy": policy,
        "file": file and Path(file).name,
        "hidden_seed": None if public_only else hidden,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "versions": versions,
        "score": scores,
        "scenarios": rows,
    }


def scored(policy: str, on: Instance) -> dict[str, Any]:
    """Measures of one run, such as mean regret with a 95 % interval and total regret in each of BLOCKS parts of a day.

    The regret of a minute is the clairvoyant's utility (`Instance.bound`) minus the policy's,
    averaged over jobs. The mean regret is over all minutes of the day. A failed decision leaves the
    replicas unchanged.
    """
    scenario, jobs, made = on.scenario, len(on.workload.jobs), make(policy, on.context)
    if made.tick_s > MINUTE_S:
        raise ValueError(
            f"policy {policy!r}: tick_s={made.tick_s:g}; the arena accepts at most {MINUTE_S:g}"
        )
    with warnings.catch_warnings(record=True, action="always", category=PolicyFailed) as caught:
        run = simulate(
            on.workload,
            made,
            scenario.capacity,
            draws=on.draws,
            capacity_steps=scenario.capacity_steps,
        )
    failures = [str(one.message) for one in caught if issubclass(one.category, PolicyFailed)]
    lost = np.array_split(np.nansum(on.bound - minute_utility(run), axis=0)[:-1] / jobs, BLOCKS)
    blocks, minutes = [float(part.sum()) for part in lost], [len(part) for part in lost]
    measures, interval = (
        summarize(run),
        block_bootstrap(np.array([[blocks]]), np.array([[minutes]])),
    )
    row: dict[str, Any] = {
        name: measures[name] for name in ("lost_utility", "slo_violation_rate", *MEASURED)
    }
    row |= dict(
        zip(("regret", "low", "high"), interval),
        bound=lost_utility(on.bound),
        blocks=blocks,
        minutes=minutes,
    )
    row |= {"jobs": jobs, "capacity_cores": scenario.capacity, "inputs_sha256": on.sha256}
    return row | {"failures": len(failures), "first_failure": failures[0] if failures else None}


def overall(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean regret over equally weighted scenarios, its 95 % interval, largest p99 decision time, and number of failures."""
    of_minute = np.array([[np.array(row["blocks"]) / row["minutes"]] for row in rows])
    interval = dict(
        zip(("regret", "low", "high"), block_bootstrap(of_minute, np.ones_like(of_minute)))
    )
    slowest, failures = (
        max(row["decision_ms_p99"] for row in rows),
        sum(row["failures"] for row in rows),
    )
    return interval | {"decision_ms_p99": slowest, "failures": failures}
