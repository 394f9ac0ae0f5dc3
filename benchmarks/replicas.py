"""Speed of the simulator by kind of replica, and of serial replicas compared with another checkout.

    python benchmarks/replicas.py [--before path/of/another/checkout]

CPU seconds of one thread without compilation, the minimum of several runs; the two checkouts take
turns. The cluster has four replicas at 80 % of their capacity and no router.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

TURNS = 5
REQUESTS = 500_000
SERIAL = """
import sys, time
sys.path.insert(0, {checkout!r})
import numpy as np
from faro_lib.simulate import SimulatedCluster, draw
from faro_lib.workload.synthetic import synthetic
workload = synthetic(jobs=10, days=2, minutes=360).workload()
draws, taken = draw(workload, 1), []
for _ in range(6):
    cluster = SimulatedCluster(workload, draws, 40, np.full(10, 4))
    began = time.process_time()
    cluster.finish()
    taken.append(time.process_time() - began)
print(min(taken[1:]), len(draws.arrival_s))
"""


def serial_s(checkout: Path) -> tuple[float, int]:
    """(least CPU time, requests) of serial replicas with the code of a checkout."""
    script = SERIAL.format(checkout=str(checkout.resolve()))
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, "-c", script]
    out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    taken, requests = out.stdout.split()
    return float(taken), int(requests)


def by_kind() -> None:
    """Print requests and, for services that generate tokens, iterations per CPU second."""
    from faro_lib.simulate import ServingModel, SimulatedCluster, draw
    from faro_lib.workload import Job, Workload
    from faro_lib.workload.replicas import SERIAL, Batched, Concurrent, Continuous

    kinds = {
        "serial": SERIAL,
        "concurrent, 4 at once": Concurrent(4, 0.5),
        "batched, up to 16": Batched(16, 0.01, 0.03, 0.002),
        "continuous, up to 32": Continuous(0.01, 5e-4, 1e-5, 32, 150.0, 200.0, 0.5, 0.5),
    }
    for name, replica in kinds.items():
        job = Job("a", model="own", service_time_s=0.1, replica=replica)
        rate_rps = 0.8 * 4 / job.busy_s
        counts = np.full((1, max(1, int(REQUESTS / (60 * rate_rps)))), int(60 * rate_rps))
        workload = Workload((job,), counts)
        model = ServingModel("least-outstanding", max_ongoing_requests=64)
        draws = draw(workload, 1, router=None)
        taken = []
        for _ in range(1 + TURNS):
            cluster = SimulatedCluster(workload, draws, 4, np.full(1, 4), model)
            began = time.process_time()
            cluster.finish()
            taken.append(time.process_time() - began)
        least_s = min(taken[1:])
        line = f"{name}: {len(draws.arrival_s) / least_s:,.0f} requests per CPU-s"
        if replica.kind == "continuous":
            of_tokens = cluster._serving.kinds
            assert of_tokens is not None
            iterations = of_tokens.iteration.sum()
            line += f", {iterations / least_s:,.0f} iterations per CPU-s"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path)
    before = parser.parse_args().before
    if before:
        here = Path(__file__).resolve().parent.parent
        pairs = [(serial_s(before)[0], serial_s(here)[0]) for _ in range(TURNS)]
        old_s, new_s = (min(column) for column in zip(*pairs))
        print(f"serial: before {old_s:.3f} CPU-s, now {new_s:.3f} CPU-s, ratio {new_s / old_s:.3f}")
    by_kind()


if __name__ == "__main__":
    main()
