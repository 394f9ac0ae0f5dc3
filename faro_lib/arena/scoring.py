"""The score of a policy in the arena: lost utility and regret by scenario, with hashes of all that produced them."""

import hashlib
import platform
import secrets
import warnings
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import faro_lib
from faro_lib.arena.scenarios import Instance, scenario_of
from faro_lib.control import PolicyFailed
from faro_lib.experiments.days import BLOCKS
from faro_lib.experiments.trials import Report
from faro_lib.metrics.measures import lost_utility, minute_utility, summarize
from faro_lib.metrics.paired import block_bootstrap
from faro_lib.policies import FACTORIES, make
from faro_lib.registry import load_plugins
from faro_lib.simulate import simulate

HIDDEN_SEEDS = 2**31
MEASURED = ("decision_ms_p50", "decision_ms_p99")  # the values of a score that differ from run to run


@lru_cache(maxsize=64)
def instance(scenario: str, seed: int) -> Instance:
    """The scenario with this seed, which all policies of a process share."""
    return Instance(scenario_of(scenario), seed)


def policies_of(entry: str) -> list[str]:
    """Names of the policies that a plugin file registers, or the name itself; ValueError if there are none."""
    if not entry.endswith(".py"):
        return [entry]
    before = set(FACTORIES)
    load_plugins([entry])
    if not (names := [name for name in FACTORIES if name not in before]):
        raise ValueError(f'{entry}: registers no policy; it needs `register("Name")(...)`, as in docs/extending.md')
    return names


def score(
    policy: str,
    scenarios: Iterable[str],
    hidden_seed: int | None = None,
    *,
    file: str | None = None,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Score a registered policy on each scenario, with its public seed and with a hidden one.

    Parameters
    ----------
    hidden_seed : None draws one, so that nobody can have tuned a policy to it; the number repeats a score.
    file : the plugin file that registers the policy, for its hash.

    Returns
    -------
    A dictionary for JSON. `scenarios` has a row for each scenario and seed, `score` the mean regret over them.
    """
    hidden = secrets.randbelow(HIDDEN_SEEDS) if hidden_seed is None else hidden_seed
    rows = []
    for name in scenarios:
        for kind, seed in (("public", scenario_of(name).public_seed), ("hidden", hidden)):
            row = scored(policy, instance(name, seed))
            rows.append({"scenario": name, "kind": kind, "seed": seed} | row)
            report(
                f"{policy} in {name} ({kind} seed): regret {row['regret']:.2%}, lost utility {row['lost_utility']:.3f}"
            )
    library = b"".join(path.read_bytes() for path in sorted(Path(faro_lib.__file__).parent.rglob("*.py")))
    return {
        "policy": policy,
        "file": file and Path(file).name,
        "hidden_seed": hidden,
        "sha256": {"file": file and _sha256(Path(file).read_bytes()), "library": _sha256(library)},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "numba", "scipy")},
        },
        "score": {kind: overall([row for row in rows if row["kind"] == kind]) for kind in ("public", "hidden")},
        "scenarios": rows,
    }


def scored(policy: str, instance: Instance) -> dict[str, Any]:
    """One run: its measures, its regret with a 95 % interval, and the regret of each of BLOCKS parts of the day.

    Regret is lost utility minus that of the clairvoyant, divided by the number of jobs: the share of all utility that
    a policy loses and need not lose. Where the policy fails, the control loop holds the replicas.
    """
    scenario, workload = instance.scenario, instance.workload
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PolicyFailed)
        made = make(policy, instance.context)
        run = simulate(workload, made, scenario.capacity, draws=instance.draws, capacity_steps=scenario.capacity_steps)
    failures = [str(one.message) for one in caught if issubclass(one.category, PolicyFailed)]
    measures, jobs = summarize(run), len(workload.jobs)
    lost = np.nansum(instance.bound - minute_utility(run), axis=0)[:-1] / jobs
    parts = np.array_split(lost, BLOCKS)
    blocks = [float(part.sum()) for part in parts]
    minutes = [len(part) for part in parts]
    regret, low, high = block_bootstrap(np.array([[blocks]]), np.array([[minutes]]))
    columns = ("lost_utility", "slo_violation_rate", *MEASURED)
    return {
        "jobs": jobs,
        "capacity_cores": scenario.capacity,
        **{column: measures[column] for column in columns},
        "bound": lost_utility(instance.bound),
        "regret": regret,
        "low": low,
        "high": high,
        "blocks": blocks,
        "minutes": minutes,
        "failures": len(failures),
        "first_failure": failures[0] if failures else None,
        "inputs_sha256": instance.sha256,
    }


def overall(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean regret over the scenarios, each with the same weight, and its 95 % interval; the largest decision time."""
    of_minute = np.array([[np.array(row["blocks"]) / row["minutes"]] for row in rows])
    regret, low, high = block_bootstrap(of_minute, np.ones_like(of_minute))
    return {
        "regret": regret,
        "low": low,
        "high": high,
        "decision_ms_p99": max(row["decision_ms_p99"] for row in rows),
        "failures": sum(row["failures"] for row in rows),
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
