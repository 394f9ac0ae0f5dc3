"""Run the calibrator on sixteen services with known replicas, four per kind.

    python tests/support/calibrated_kinds.py [SEED]

The plain simulator of the tests simulates them. Prints a row per service; docs/replicas.md sums
them up. One service takes 10 to 30 CPU seconds.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from reference_services import SERVICES, found, profiled

from faro_ops.advise.calibrate import calibrate
from studies.tables.wording import markdown_lines

COLUMNS = (
    "service",
    "kind named (probability)",
    "capacity (requests/s): true, found",
    "worst parameter",
    "verdict",
)


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    right, close = 0, 0
    seconds = []

    def rows():
        nonlocal right, close
        for known in SERVICES:
            measurements = profiled(known, seed)
            limits = {"max_ongoing_requests": known.places, "dispatch": "round-robin"}
            began = time.process_time()
            calibration = calibrate(measurements, **limits, tokens=known.tokens)
            seconds.append(time.process_time() - began)
            low, middle, high = calibration.capacity_rps
            capacity = f"{known.capacity_rps:.3g}, {middle:.3g} ({low:.3g} to {high:.3g})"
            named = f"{calibration.kind} ({calibration.weights[calibration.kind]:.2f})"
            error = "-"
            if calibration.kind == known.replica.kind:
                right += 1
                worst, size = worst_parameter(known, calibration)
                close += abs(size) <= 0.15
                error = f"{worst} {100 * size:+.0f} %"
            yield known, named, capacity, error, calibration.verdict

    for line in markdown_lines(COLUMNS, rows()):
        print(line, flush=True)
    print(
        f"\n{right} of {len(SERVICES)} kinds right, {close} with every parameter within 15 %; "
        f"{np.median(seconds):.0f} CPU seconds each, at most {max(seconds):.0f}"
    )


def worst_parameter(known, calibration) -> tuple[str, float]:
    """(name, relative error) of the parameter whose median is farthest from the true value."""
    medians = found(calibration)
    errors = {
        name: medians[name] / value - 1 for name, value in known.parameters().items() if value
    }
    worst = max(errors, key=lambda name: abs(errors[name]))
    return worst, errors[worst]


if __name__ == "__main__":
    main()
