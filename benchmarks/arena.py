"""Rerun the entries of the arena and check that they reproduce, or record new results.

    python benchmarks/arena.py            # every entry of data/arena, with its scenarios and seed
    python benchmarks/arena.py KPA HPA    # some of them
    python benchmarks/arena.py --record   # all of ENTRIES, with a new hidden seed
    # one more, with the hidden seed of the others
    python benchmarks/arena.py --record arena/keda.py --hidden-seed 7

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
from faro_ops.arena.scenarios import scenarios
from faro_ops.arena.scoring import HIDDEN_SEEDS, MEASURED, policy_of, score

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "data/arena"
PLUGINS = ROOT / "studies"
# Policies, and files in studies/.
ENTRIES = (
    "FairShare",
    "AIAD",
    "MArk",
    "HPA",
    "RayServe-2.60",
    "Faro-Sum",
    "Faro-FairSum",
    "Faro-Sum-learning",
    "arena/hpa_behavior.py",
    "arena/keda.py",
    "arena/knative.py",
    "paper/cilantro.py",
)
TOLERANCE = 1e-6


def rerun(entry: str, names: list[str], hidden_seed: int) -> dict:
    """The score of an entry: a file in studies/ or a policy's name."""

    def report(line: str) -> None:
        print(line, flush=True)

    file = str(PLUGINS / entry) if entry.endswith(".py") else None
    scored = score(policy_of(file or entry), names, hidden_seed, file=file, report=report)
    return {"entry": entry} | scored


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
    parser.add_argument("--hidden-seed", type=int, default=1 + secrets.randbelow(HIDDEN_SEEDS))
    arguments = parser.parse_args()
    began = time.perf_counter()
    wrong = []
    if arguments.record:
        quick = [one.name for one in scenarios().values() if one.quick]
        KEPT.mkdir(exist_ok=True)
        for entry in arguments.names or ENTRIES:
            made = rerun(entry, quick, arguments.hidden_seed)
            with atomic_write(KEPT / f"{made['policy']}.json") as partial:
                partial.write_text(json.dumps(made, indent=1) + "\n")
    else:
        files = [KEPT / f"{name}.json" for name in arguments.names] or sorted(KEPT.glob("*.json"))
        for kept in [json.loads(file.read_text()) for file in files]:
            names = list(dict.fromkeys(row["scenario"] for row in kept["scenarios"]))
            now = rerun(kept["entry"], names, kept["hidden_seed"])
            wrong += differences(kept, now)
            if now["sha256"] != kept["sha256"]:
                print(f"{kept['policy']}: the code has changed since it was recorded")
        print("\n".join(wrong) or f"{len(files)} entries reproduce")
    print(f"{time.perf_counter() - began:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
