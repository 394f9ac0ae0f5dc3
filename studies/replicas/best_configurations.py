"""Utility tables over cores: a cell holds a service's best configuration for a number of cores.

A configuration, such as a batch size or a GPU type, sets the service time and cores of all replicas
of a service. A unit is the greatest common divisor of the configurations' cores. Column x of a
table stands for x units, and solvers treat a unit as one replica. The exact solver finds the best
configurations and replica counts, except for FairSum and PenaltyFairSum. They also reward equal
utilities, which may need a worse configuration that is not in the table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from faro_lib.utility.table import UtilityTable, build_table, with_switching_cost
from faro_lib.workload.jobs import TOLERANCE, Job, arrays_of

# The fields of `Job` in which configurations of a service may differ.
OWN = {
    "name",
    "model",
    "replica",
    "service_time_s",
    "service_scv",
    "latency_curve",
    "cold_start_s",
    "cores",
    "min_replicas",
    "max_replicas",
}


@dataclass(frozen=True, slots=True)
class Configurations:
    """A utility table of services on 0, 1, ... units of cores, with each cell's configuration."""

    # Counts units of cores, not replicas; a unit is the gcd of the configurations' `cores`.
    table: UtilityTable
    rows: tuple[Job, ...]  # all configurations, grouped by service
    row: np.ndarray  # index into `rows` of the best configuration, (services, columns of the table)
    replicas: np.ndarray  # number of replicas of that configuration, same shape

    def chosen(self, units) -> list[tuple[Job, int]]:
        """(configuration, replica count) per service.

        `units` is a solver's `Allocation.replicas`, which counts units.
        """
        cells = np.arange(len(self.row)), np.asarray(units)
        return [(self.rows[row], int(x)) for row, x in zip(self.row[cells], self.replicas[cells])]


def best_configurations(
    options: Mapping[str, Sequence[Job]],
    rates_rps,
    current: Sequence[str],
    running,
    *,
    cores: float,
    switching_cost: float = 0.0,
    **settings,
) -> Configurations:
    """The best configuration of every service on 0 to `cores` cores, by expected utility.

    Each cell holds the configuration and replica count with the largest `UtilityTable.effective` of
    all that fit into the cell's cores. Until replicas of a new configuration have started, the
    running replicas serve. Ties go to the current configuration and, within a configuration, to
    fewer replicas.

    Parameters
    ----------
    options : service -> its configurations, which are jobs that differ only in the fields OWN.
    rates_rps : array (services, samples, minutes), requests per second.
    current, running : name and replica count of each service's present configuration, both
        (services,).
    switching_cost : utility subtracted unless both the configuration and the replica count stay as
        they are.
    settings : further arguments of `build_table`.

    >>> fast = Job("fast", service_time_s=0.09, cores=3.0)
    >>> options, rates_rps = {"a": [Job("slow"), fast]}, np.full((1, 1, 2), 8.0)
    >>> best = best_configurations(options, rates_rps, ["slow"], [1], cores=3)
    >>> [(job.name, x) for units in (1, 2, 3) for job, x in best.chosen([units])]
    [('slow', 1), ('slow', 2), ('slow', 3)]
    """
    if not len(rates_rps) == len(current) == len(running) == len(options):
        needed = f"one entry for each of the {len(options)} services"
        raise ValueError(f"rates_rps, current and running must have {needed}")
    rows = tuple(job for jobs in options.values() for job in jobs)
    of_service = np.repeat(np.arange(len(options)), [len(jobs) for jobs in options.values()])
    names = [(of_service[r], job.name) for r, job in enumerate(rows)]
    now = [names.index((j, name)) if (j, name) in names else -1 for j, name in enumerate(current)]
    for j, (service, jobs) in enumerate(options.items()):
        if now[j] < 0:
            problem = f"current={current[j]!r} is not one of its configurations"
            raise ValueError(f"service {service!r}: {problem}")
        _check_alike(service, jobs)
    tenths = np.rint(10 * arrays_of(rows).cores).astype(int)
    unit = int(np.gcd.reduce(tenths))
    cost, columns = tenths // unit, int(10 * cores / unit + TOLERANCE) + 1
    serving = np.array(now)[of_service]
    rates_rps, running = np.asarray(rates_rps, float)[of_service], np.asarray(running)
    parts = build_table(rows, rates_rps, running[of_service], serving=serving, **settings)
    parts = with_switching_cost(parts, switching_cost, unchanged=serving == np.arange(len(rows)))

    shape = len(options), columns
    value, effective, drop = np.full(shape, -np.inf), np.full(shape, -np.inf), np.zeros(shape)
    row, replicas = np.zeros(shape, int), np.zeros(shape, int)
    for r in sorted(range(len(rows)), key=lambda r: r != serving[r]):
        highest = np.maximum.accumulate(parts.effective[r])
        # fewest[x] is the smallest count with the best utility among 0..x.
        fewest = np.searchsorted(highest, highest)
        fitting = np.minimum(np.arange(columns) // cost[r], parts.columns)
        x, j = fewest[fitting], of_service[r]
        better = parts.effective[r, x] > effective[j]
        for array, found in (
            (value, parts.value[r, x]),
            (effective, parts.effective[r, x]),
            (drop, parts.drop[r, x]),
        ):
            array[j, better] = found[better]
        row[j, better], replicas[j, better] = r, x[better]
    units = [
        replace(
            jobs[0],
            name=service,
            cores=unit / 10,
            min_replicas=int(np.argmax(value[j] > -np.inf)),
            max_replicas=columns - 1,
        )
        for j, (service, jobs) in enumerate(options.items())
    ]
    best = UtilityTable.from_values(
        units,
        value,
        running=running * cost[now],
        effective=effective,
        drop=drop if parts.with_drops else None,
    )
    return Configurations(best, rows, row, replicas)


def _check_alike(service: str, jobs: Sequence[Job]) -> None:
    """Raise ValueError if the configurations differ in another field than OWN."""
    for field in fields(Job):
        if field.name not in OWN and len({getattr(job, field.name) for job in jobs}) > 1:
            problem = f"{field.name} must be the same in all of its configurations"
            raise ValueError(f"service {service!r}: {problem}")
