"""Run the calibrator on sixteen services with known replicas, four per kind, simulated by the plain
simulator of the tests.

    python benchmarks/kinds.py [SEED]

Prints the table of docs/replicas.md. One service takes 10 to 30 CPU seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from reference_services import SERVICES, found, profiled

from faro_ops.calibrate import calibrate

COLUMNS = (
    "service",
    "kind named (probability)",
    "capacity (requests/s): true, found",
    "worst parameter",
    "verdict",
)


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print(f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|", sep="\n")
    right, close, seconds = 0, 0, []
    for known in SERVICES:
        measurements = profiled(known, seed)
        began = time.process_time()
        calibration = calibrate(
            measurements,
            max_ongoing_requests=known.places,
            dispatch="round-robin",
            tokens=known.tokens,
        )
        seconds.append(time.process_time() - began)
        low, middle, high = calibration.capacity_rps
        capacity = f"{known.capacity_rps:.3g}, {middle:.3g} ({low:.3g} to {high:.3g})"
        named = f"{calibration.kind} ({calibration.weights[calibration.kind]:.2f})"
        error = "-"
        if calibration.kind == known.replica.kind:
            right += 1
            medians = found(calibration)
            errors = {
                name: medians[name] / value - 1
                for name, value in known.parameters().items()
                if value
            }
            worst = max(errors, key=lambda name: abs(errors[name]))
            close += abs(errors[worst]) <= 0.15
            error = f"{worst} {100 * errors[worst]:+.0f} %"
        print(f"| {known} | {named} | {capacity} | {error} | {calibration.verdict} |", flush=True)
    print(
        f"\n{right} of {len(SERVICES)} kinds right, {close} with every parameter within 15 %; ",
        end="",
    )
    print(f"{np.median(seconds):.0f} CPU seconds each, at most {max(seconds):.0f}")


if __name__ == "__main__":
    main()
