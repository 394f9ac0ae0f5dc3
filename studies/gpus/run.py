"""The kinds of replica of measured GPUs, for faro_lib/workload/gpus.yaml and docs/replicas.md.

    python -m faro_pipeline fetch splitwise && python -m studies.gpus.run
    python -m studies.tables.pages gpus

A row of `data/raw/splitwise-perf-model.csv` is a run of one batch on real GPUs.
"""

import argparse
import json
from pathlib import Path

from faro_lib.files import atomic_write
from faro_ops.advise.calibrate.gpus import fit_gpus, read_runs

FITTED = Path(__file__).parents[2] / "faro_lib/workload/gpus.yaml"
HEAD = "# Written by studies/gpus/run.py, from {}; the fields are explained in `GpuFit`.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="?", default="data/raw/splitwise-perf-model.csv")
    runs = Path(parser.parse_args().runs)
    lines = [HEAD.format(runs.name)]
    for fit in fit_gpus(read_runs(runs)):
        begin = "- "
        for key, value in fit.to_dict().items():
            lines.append(f"{begin}{key}: {json.dumps(value)}\n")
            begin = "  "
    with atomic_write(FITTED) as partial:
        partial.write_text("".join(lines))


if __name__ == "__main__":
    main()
