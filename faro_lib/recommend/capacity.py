"""How many replicas a promise needs: the last day replayed at several cluster sizes, by the code that runs live."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from faro_lib.experiments.compare import summaries
from faro_lib.policies import Policy
from faro_lib.simulate import ServingModel
from faro_lib.simulate.cluster import PAPER
from faro_lib.utility import predicted_latency
from faro_lib.workload import Traces, Workload, jobs_array
from faro_lib.workload.jobs import MINUTE_S

COLUMNS = ["capacity_cores", "slo_violation_rate", "lost_utility", "replicas_used_mean"]
COARSE = 7  # sizes before the refinement
HEADROOM = 1.25  # over what a clairvoyant would need at the worst minute


def busiest(traces: Traces, minutes: int) -> tuple[Traces, int]:
    """The part of the evaluation day with the most requests, training days cut to begin with it; and its first minute."""
    day = traces.evaluation[0].sum(axis=0)
    if minutes >= len(day):
        return traces, 0
    first = int(np.convolve(day, np.ones(minutes), "valid").argmax())
    rolled = np.roll(traces.train, -first, axis=-1)
    return Traces(traces.jobs, rolled, traces.evaluation[..., first : first + minutes]), first


def sizes_worth_trying(workload: Workload, latency_model) -> tuple[int, int]:
    """From everybody's minimum to what the worst minute would take if it were known, and a quarter more."""
    jobs, cores = workload.jobs, jobs_array(workload.jobs, "cores")
    rates_rps = workload.requests_per_min / MINUTE_S
    slo_s, need = jobs_array(jobs, "slo_s")[:, None], np.zeros(rates_rps.shape)
    for x in range(1, 201):
        open_ = need == 0
        if not open_.any():
            break
        kept = predicted_latency(jobs, rates_rps, np.full(len(jobs), x), latency_model=latency_model) <= slo_s
        need[open_ & kept] = x
    need = np.clip(need, 1, jobs_array(jobs, "max_replicas")[:, None])
    fewest = int(np.ceil(np.maximum(jobs_array(jobs, "min_replicas"), 1) @ cores))
    return fewest, max(fewest + 1, int(np.ceil(HEADROOM * (cores @ need).max())))


def curve(
    workload: Workload,
    policy: Policy,
    sizes: tuple[int, int],
    violations: float,
    *,
    include: int | None = None,
    serving_model: ServingModel = PAPER,
    trials: int = 1,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """SLO violations at cluster sizes from the least possible to plenty, the finer the nearer to `violations`.

    Parameters
    ----------
    sizes : the least and the most worth trying (`sizes_worth_trying`).
    violations : the rate that is wanted; between the two sizes around it every step of the bisection is replayed.
    include : a size to replay in any case.

    Returns
    -------
    COLUMNS, sorted by replicas (cores, where replicas have several).
    """
    least, most = sizes
    found: dict[int, dict] = {}

    def replay(size: int) -> float:
        if size not in found:
            summary, _ = summaries(
                workload, {policy.name: policy}, size, trials, serving_model=serving_model, report=lambda _: None
            )
            found[size] = {"capacity_cores": size} | summary[COLUMNS[1:]].mean().to_dict()
            report(f"{size} cores: {found[size]['slo_violation_rate']:.2%} of requests violate their SLO")
        return found[size]["slo_violation_rate"]

    for size in np.unique(np.linspace(least, most, COARSE).round().astype(int)):
        replay(int(size))
    if include is not None and include >= least:
        replay(include)
    kept = [size for size in found if found[size]["slo_violation_rate"] <= violations]
    if kept:
        enough = min(kept)
        short = max((size for size in found if size < enough), default=enough - 1)
        while enough - short > 1:
            middle = (enough + short) // 2
            enough, short = (middle, short) if replay(middle) <= violations else (enough, middle)
    return pd.DataFrame(found.values()).sort_values("capacity_cores", ignore_index=True)[COLUMNS]


def needed(table: pd.DataFrame, violations: float) -> int | None:
    """The smallest replayed size that keeps the rate; None if none does.

    >>> needed(pd.DataFrame({"capacity_cores": [8, 12, 16], "slo_violation_rate": [0.3, 0.02, 0.001]}), 0.01)
    16
    """
    enough = table[table["slo_violation_rate"] <= violations]
    return None if enough.empty else int(enough["capacity_cores"].min())


def knee(table: pd.DataFrame) -> int | None:
    """Where more capacity stops to pay: the point of the curve farthest below the chord between its ends.

    Both axes are scaled to 0..1 first (Satopaa et al., "Finding a 'Kneedle' in a Haystack", 2011, without its smoothing).
    None where no point lies below the chord.

    >>> knee(pd.DataFrame({"capacity_cores": [4, 8, 12, 16, 20], "slo_violation_rate": [0.9, 0.4, 0.05, 0.02, 0.0]}))
    12
    """
    x, y = table["capacity_cores"].to_numpy(float), table["slo_violation_rate"].to_numpy(float)
    if len(x) < 3 or y[0] <= y[-1]:
        return None
    below = (1 - (x - x[0]) / (x[-1] - x[0])) - (y - y[-1]) / (y[0] - y[-1])
    return int(x[below.argmax()]) if below.max() > 0 else None
