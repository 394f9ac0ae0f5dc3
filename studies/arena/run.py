"""Rerun the entries of the arena and check that they reproduce, or record new results.

    python -m studies.arena.run            # every entry of data/arena, with its scenarios and seed
    python -m studies.arena.run KPA HPA    # some of them
    python -m studies.arena.run --record   # all of ENTRIES, with a new hidden seed
    # one more, with the hidden seed of the others
    python -m studies.arena.run --record arena/keda.py --hidden-seed 7
    # a new scenario for every entry of data/arena, with its hidden seed
    python -m studies.arena.run --add wrong-times-v1
    # the entries of a scenario that has a list of its own
    python -m studies.arena.run --record --only llm-10-v1 --hidden-seed 7

The exit status is 1 if a value differs by more than 1e-6. The decision times are those of the
machine and are not compared.
"""

from __future__ import annotations

import argparse
import json
import secrets
import time
from pathlib import Path

from faro_lib.files import atomic_write
from faro_ops.advise.arena.scenarios import scenario_of, scenarios
from faro_ops.advise.arena.scoring import HIDDEN_SEEDS, MEASURED, overall, policy_of, score
from studies.arena.scores import counted

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "data/arena"
PLUGINS = ROOT / "studies"
# Policies, and files in studies/.
ENTRIES = (
    "FairShare",
    "AIAD",
    "MArk",
    "HPA",
    "RayServe-2.60",
    "Static",
    "Faro-Sum",
    "Faro-Sum-learning",
    "Faro-FairSum",
    "arena/hpa_behavior.py",
    "arena/keda.py",
    "arena/knative.py",
    "paper/cilantro.py",
)
# Scenario -> entries that are scored on it alone, recorded in a folder with its name. The last ones
# read gauges that only the engines of this scenario have.
OF_SCENARIO = {
    "llm-10-v1": (
        "FairShare",
        "HPA",
        "RayServe-2.60",
        "Faro-Sum",
        "Faro-FairSum",
        "arena/keda.py",
        "arena/knative.py",
        "arena/llm_waiting.py",
        "arena/llm_cache.py",
        "arena/llm_ray_serve.py",
        "arena/llm_dynamo.py",
    ),
}
TOLERANCE = 1e-6


def rerun(entry: str, names: list[str], hidden_seed: int) -> dict:
    """The score of an entry: a file in studies/ or a policy's name."""

    def report(line: str) -> None:
        print(line, flush=True)

    file = str(PLUGINS / entry) if entry.endswith(".py") else None
    scored = score(policy_of(file or entry), names, hidden_seed, file=file, report=report)
    return {"entry": entry} | scored


def with_scenario(kept: dict, name: str, more: dict) -> dict:
    """A recorded entry, and its rows `more` for one scenario, which replace older ones.

    `added` has the hashes of the code that scored each such scenario. Means are over the quick set.
    """
    rows = [row for row in kept["scenarios"] if row["scenario"] != name] + more["scenarios"]
    of_kind = {
        kind: [row for row in counted(rows) if row["kind"] == kind] for kind in kept["score"]
    }
    return kept | {
        "score": {kind: overall(part) for kind, part in of_kind.items()},
        "scenarios": rows,
        "added": kept.get("added", {}) | {name: more["sha256"]},
    }


def record(entry: dict, folder: Path = KEPT) -> None:
    folder.mkdir(exist_ok=True)
    with atomic_write(folder / f"{entry['policy']}.json") as partial:
        partial.write_text(json.dumps(entry, indent=1) + "\n")


def recorded(names: list[str], pattern: str = "**/*.json") -> list[dict]:
    """The entries of data/arena with these names; all of them without names."""
    files = sorted(KEPT.glob(pattern))
    kept = [json.loads(file.read_text()) for file in files]
    missing = sorted(set(names) - {entry["policy"] for entry in kept})
    if missing:
        raise SystemExit(f"{KEPT} has no entry {missing[0]!r}")
    return [entry for entry in kept if not names or entry["policy"] in names]


def differences(kept: dict, now: dict) -> list[str]:
    """Differences between two scores of one entry, one line per value."""
    lines = []
    for was, row in zip(kept["scenarios"], now["scenarios"], strict=True):
        for column, value in was.items():
            if column in MEASURED:
                continue
            pairs = [(value, row[column])]
            if isinstance(value, list):
                pairs = list(zip(value, row[column], strict=True))
            for a, b in pairs:
                same = abs(a - b) <= TOLERANCE if isinstance(a, float) else a == b
                if not same:
                    run = f"{kept['policy']}, {was['scenario']}, {was['kind']} seed"
                    lines.append(f"{run}: {column} was {a}, is {b}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="policies; with --record, entries")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--add", metavar="SCENARIO", help="score recorded entries on it, too")
    parser.add_argument(
        "--only", choices=OF_SCENARIO, help="with --record: the entries of this scenario alone"
    )
    parser.add_argument("--hidden-seed", type=int, default=1 + secrets.randbelow(HIDDEN_SEEDS))
    arguments = parser.parse_args()
    began = time.perf_counter()
    wrong = []
    if arguments.only and not arguments.record:
        parser.error("--only goes with --record")
    if arguments.only:
        for entry in arguments.names or OF_SCENARIO[arguments.only]:
            scored = rerun(entry, [arguments.only], arguments.hidden_seed)
            record(scored, KEPT / arguments.only)
    elif arguments.record:
        quick = [one.name for one in scenarios().values() if one.quick]
        for entry in arguments.names or ENTRIES:
            record(rerun(entry, quick, arguments.hidden_seed))
    elif arguments.add:
        scenario_of(arguments.add)
        for kept in recorded(arguments.names, "*.json"):
            more = rerun(kept["entry"], [arguments.add], kept["hidden_seed"])
            record(with_scenario(kept, arguments.add, more))
    else:
        again = recorded(arguments.names)
        for kept in again:
            names = list(dict.fromkeys(row["scenario"] for row in kept["scenarios"]))
            now = rerun(kept["entry"], names, kept["hidden_seed"])
            wrong += differences(kept, now)
            if now["sha256"] != kept["sha256"]:
                print(f"{kept['policy']}: the code has changed since it was recorded")
        print("\n".join(wrong) or f"{len(again)} entries reproduce")
    print(f"{time.perf_counter() - began:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
