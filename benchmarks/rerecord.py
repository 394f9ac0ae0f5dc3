"""Run one policy again in the recorded comparisons, with their seeds, and replace its rows.

    python benchmarks/rerecord.py RayServe

Use it after a baseline has been corrected, so that its rows need not wait for a run of everything
(`config/paper.yaml` and `config/wide.yaml`, 80 minutes). The tables are those in data/published-run
and data/wide-run. The differences from Faro-Sum in data/wide-run need Faro-Sum's runs, which are
repeated and must equal the recorded ones. Policies that need the fitted posterior of the paper's
comparison are refused.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from faro_lib.policies import PolicyContext
from faro_lib.workload import Traces
from faro_lib.workload.tables import load_workload
from faro_ops.advise.checks import learners
from studies import scale
from studies.days import over_days, paired
from studies.run_tables import summaries

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED, WIDE = ROOT / "data/published-run", ROOT / "data/wide-run"
LEADER = "Faro-Sum"
TOLERANCE = 1e-9  # relative, between repeated and recorded runs


def settings(name: str) -> dict:
    return yaml.safe_load((ROOT / "config" / name).read_text())


def replace_rows(path: Path, new: pd.DataFrame, keys: list[str]) -> None:
    """Replace the rows of a CSV that have the `keys` of a row in `new`, at their places.

    Lines of other rows stay as they are. Columns that `new` lacks keep their recorded values.
    """
    with path.open(newline="") as file:
        head, *lines = list(csv.reader(file))
    rows = {
        tuple(str(row[key]) for key in keys): row for row in new.astype(object).to_dict("records")
    }
    places = [head.index(key) for key in keys]
    replaced = 0
    for line in lines:
        row = rows.get(tuple(line[place] for place in places))
        if row is None:
            continue
        replaced += 1
        for place, column in enumerate(head):
            if column in row:
                line[place] = str(row[column])
    if replaced != len(rows):
        raise ValueError(f"{path}: {replaced} of {len(rows)} rows were found")
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *lines])
    print(f"{path.relative_to(ROOT)}: {replaced} rows", flush=True)


def published(policy: str) -> None:
    """The policy's rows in the comparison with the paper, over capacities, and with two models."""
    options = settings("paper.yaml")
    of_scale = options["scale"]
    traces = load_workload(options["workload"], raw=str(ROOT / "data/raw"))
    day, context = traces.workload(), PolicyContext(traces.jobs, traces=traces)
    made = {policy: scale.make_any(policy, context)}
    compared = [
        summaries(day, made, capacity, options["trials"], published=True)
        for capacity in settings("default.yaml")["capacities"]
    ]
    replace_rows(
        PUBLISHED / "summary.csv", pd.concat(compared), ["policy", "capacity_cores", "trial"]
    )

    curves = [
        scale.curve(
            traces,
            context,
            of_scale["curve"],
            [policy],
            trials=settings("default.yaml")["scale"]["curve_trials"],
            limit=False,
            equal_start=equal,
        )[0]
        for equal in (False, True)
    ]
    curve = pd.concat(curves)
    replace_rows(PUBLISHED / "curve.csv", curve, ["policy", "capacity_cores", "trial", "start"])

    mixed = [
        scale.two_models(traces, context, capacity, [policy], trials=of_scale["trials"])[0]
        for capacity in of_scale["mixed"]
    ]
    ten = curve[curve["start"] == scale.ONE]
    ten = ten.assign(variant="ten traces", jobs=len(traces.jobs))
    sizes = scale.as_published(pd.concat([*mixed, ten]))
    replace_rows(PUBLISHED / "sizes.csv", sizes, ["variant", "jobs", "replicas", "system"])


def worlds() -> dict[str, tuple[Traces, list[int], list[int]]]:
    """Name of a world of config/wide.yaml -> its traces, the judged days and the capacities."""
    options = settings("wide.yaml")
    raw, generated = str(ROOT / "data/raw"), settings("default.yaml")["synthetic"]
    own = load_workload(str(ROOT / options["workload"]), str(ROOT / options["jobs"]), raw=raw)
    found = {"azure-2019": (own, options["days"]["judged"], options["capacities"])}
    for world in options["days"]["worlds"]:
        traces = load_workload(
            world.get("workload", "synthetic"),
            raw=raw,
            synthetic=generated | world.get("synthetic", {}),
        )
        judged = world.get("judged") or [traces.days + 1]
        found[world["name"]] = traces, judged, world["capacities"]
    return found


def wide(policy: str) -> None:
    """The policy's rows on further days and workloads."""
    trials = settings("wide.yaml")["days"]["trials"]
    for name, (traces, judged, capacities) in worlds().items():
        blocks = over_days(traces, judged, capacities, [policy, LEADER], trials)
        table = paired(blocks, LEADER)
        path, keys = WIDE / f"{name}.csv", ["day", "capacity_cores", "policy"]
        check_leader(path, table)
        replace_rows(path, table[table["policy"] == policy], keys)


def check_leader(path: Path, table: pd.DataFrame) -> None:
    """Raise ValueError if the repeated runs of the leader are not the recorded ones."""
    recorded = pd.read_csv(path, dtype={"day": str})
    repeated = table.assign(day=table["day"].astype(str))
    both = recorded.merge(
        repeated[repeated["policy"] == LEADER],
        on=["day", "capacity_cores", "policy"],
        suffixes=("", "_repeated"),
    )
    lost, again = both["lost_utility"], both["lost_utility_repeated"]
    if not len(both) or not np.allclose(lost, again, rtol=TOLERANCE, atol=0):
        worst = float(np.max(np.abs(lost - again))) if len(both) else np.nan
        raise ValueError(f"{path}: {LEADER} differs from the recorded run by {worst:.3g}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", help="name of a policy without a forecast, such as RayServe")
    parser.add_argument("--only", choices=["published", "wide"], help="part to run")
    arguments = parser.parse_args()
    traces = load_workload("synthetic")
    if learners([arguments.policy], traces.jobs):
        print(f"{arguments.policy}: needs a fitted forecaster; run the pipeline", file=sys.stderr)
        return 2
    if arguments.only != "wide":
        published(arguments.policy)
    if arguments.only != "published":
        wide(arguments.policy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
