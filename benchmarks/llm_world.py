"""The ten services of the arena's scenario llm-10-v1, described by ServeGen's days 1 to 8.

    python benchmarks/llm_world.py [--servegen data/raw/servegen] [--out data]
    python benchmarks/llm_world.py --tune

The first form writes llm-10-jobs.yaml (lengths and bursts, as in docs/llm.md) and llm-10-rates.csv
(mean rates). The scenario needs these two files only, so that everybody can run it. The second form
tunes the entries of studies/arena/gauges.py with the public seed, and writes
arena/llm-10-tuning.csv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from faro_lib.files import atomic_write
from faro_lib.metrics.measures import lost_utility, minute_utility
from faro_lib.simulate import simulate
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous
from faro_ops.advise.arena.scenarios import instance, scenario_of
from faro_ops.advise.calibrate import tokens_of
from studies.arena.gauges import TUNABLE
from studies.frames import write_csv
from studies.llm import ASSUMED_DAYS, GPU, Services, services_of
from studies.rivals import Rival
from studies.servegen import read
from studies.tuning import Setting, searched

JOBS, RATES, TUNING = "llm-10-jobs.yaml", "llm-10-rates.csv", "arena/llm-10-tuning.csv"
HEAD = f"""\
# Written by benchmarks/llm_world.py for the arena's scenario llm-10-v1: ten clients of ServeGen
# (Xiang et al., 2025; Apache-2.0): mean lengths and bursts of days 1 to {ASSUMED_DAYS}.
"""


def row_of(job: Job) -> dict[str, Any]:
    """The row of a table of jobs, with the replica by the name of its GPU."""
    replica = job.replica
    assert isinstance(replica, Continuous)
    own = {"slo_on": replica.slo_on, "per_token_weight": replica.per_token_weight}
    in_10s, in_1s, in_100ms = job.dispersion
    return {
        "job": job.name,
        "slo_s": job.slo_s,
        "cold_start_s": job.cold_start_s,
        "model": job.model,
        "replica": GPU | (tokens_of(replica) or {}) | own,
        "dispersion_10s": in_10s,
        "dispersion_1s": in_1s,
        "dispersion_100ms": in_100ms,
    }


def mean_rates(services: Services) -> pd.DataFrame:
    """Columns job and mean_rps, over days 1 to ASSUMED_DAYS."""
    per_min = services.requests[:ASSUMED_DAYS].mean(axis=(0, 2))
    names = [job.name for job in services.jobs]
    return pd.DataFrame({"job": names, "mean_rps": (per_min / MINUTE_S).round(3)})


def tuned() -> pd.DataFrame:
    """What was tried of each entry, with its lost utility on the scenario's public day."""
    scenario = scenario_of("llm-10-v1")
    on = instance(scenario.name, scenario.public_seed)

    def loss_of(entry: Rival, capacity: int, setting: Setting) -> float:
        run = simulate(
            on.workload,
            entry.make(on.context, **setting),
            capacity,
            draws=on.draws,
            serving_model=scenario.serving_model,
            make_cluster=scenario.make_cluster,
        )
        return lost_utility(minute_utility(run))

    def say(name: str, capacity: int, own: Setting, lost: float) -> None:
        print(f"{name}: {own} loses {lost:.3f}", flush=True)

    return searched(TUNABLE, [int(scenario.capacity)], loss_of, say)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servegen", type=Path, default=Path("data/raw/servegen"))
    parser.add_argument("--out", type=Path, default=Path("data"))
    parser.add_argument("--tune", action="store_true")
    options = parser.parse_args(arguments)
    if options.tune:
        write_csv(tuned(), options.out / TUNING)
        print(options.out / TUNING)
        return
    services = services_of(read(options.servegen))
    rows = [row_of(job) for job in services.jobs]
    with atomic_write(options.out / JOBS) as partial:
        partial.write_text(HEAD + yaml.safe_dump(rows, sort_keys=False, width=100))
    write_csv(mean_rates(services), options.out / RATES)
    print(f"{options.out / JOBS}\n{options.out / RATES}")


if __name__ == "__main__":
    main()
