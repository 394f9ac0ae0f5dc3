"""The capacity and the constant replica counts that the SLOs need, from replays of recorded days."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.experiments.trials import Report, policy_failures_raised, trial_seeds, uniform_draws
from faro_lib.metrics.measures import lost_utility, minute_utility, violation_rate_by_job
from faro_lib.policies import Policy
from faro_lib.policies.baselines import fair_share
from faro_lib.simulate import Draws, Run, ServingModel, SimulatedCluster, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.utility import predicted_latency
from faro_lib.workload import Job, Traces, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S

# Name, SLO violation rate and accepted rate of the job with the largest ratio of these two rates.
WORST = ["worst_job", "slo_violation_rate", "accepted_rate"]
# violation_rates has the violation rate of each job, {job: rate}.
COLUMNS = ["capacity_cores", *WORST, "lost_utility", "replicas_used_mean", "violation_rates"]
# Cases that `variations` replays. Each name maps to (factor on the requests, number of failed replicas).
VARIATIONS = {
    "as recorded": (1.0, 0),
    "with 10 % more requests": (1.1, 0),
    "with 20 % more requests": (1.2, 0),
}
VARIATIONS |= {"without one replica": (1.0, 1)}
SEEDS = 3  # number of simulations, each with its own seed, in which a replica count or capacity must keep the SLOs
RUN_UP_MINUTES = (
    15  # replayed before the busiest minutes, so that these do not begin with too few replicas
)
DOUBLINGS = 3  # maximum number of doublings of the predicted replica count, if it does not meet the SLO in simulation
GROWTH = 1.25  # when a capacity does not suffice, the next one tried is larger by this factor
MOST_GROWTH = (
    2.5  # the search for a sufficient capacity ends at this multiple of the first estimate
)
MAX_REPLICAS = 200  # the search for required replicas ends at this plus twice the largest offered load in erlangs
UTILISATION = 0.7  # planned utilisation of a job whose SLO no replica count meets


def busiest(traces: Traces, minutes: int) -> tuple[Traces, int]:
    """Cut the evaluation day to its busiest minutes and a run-up to them. Return (traces, first minute that is kept).

    `minutes` includes the run-up. Training days keep their length, but are rotated to begin at the first minute kept.
    """
    arrays = arrays_of(traces.jobs)
    day = (arrays.busy_s * arrays.cores) @ traces.evaluation[0]
    if minutes >= len(day):
        return traces, 0
    run_up = min(RUN_UP_MINUTES, minutes // 2)
    busy = np.convolve(
        day[run_up:], np.ones(minutes - run_up), "valid"
    )  # load of each window without its run-up
    first = int(busy.round(6).argmax())  # rounded, so that the first of equal sums wins
    rolled = np.roll(traces.train, -first, axis=-1)
    return Traces(traces.jobs, rolled, traces.evaluation[..., first : first + minutes]), first


def required_replicas(workload: Workload, latency_model: Any) -> np.ndarray:
    """Smallest replica counts that meet the SLOs at the rate of each minute, (jobs, minutes).

    If no count meets the SLO, the count with utilisation UTILISATION is taken. Counts are clipped to 1..max_replicas.
    """
    arrays, rates_rps = arrays_of(workload.jobs), workload.requests_per_min / MINUTE_S
    required = np.zeros(rates_rps.shape)
    busy = int((rates_rps * [[job.busy_s] for job in workload.jobs]).max())
    for x in range(1, MAX_REPLICAS + 2 * busy + 1):
        replicas = np.full(len(workload.jobs), x)
        latency_s = predicted_latency(
            workload.jobs, rates_rps, replicas, latency_model=latency_model
        )
        required[(required == 0) & (latency_s <= arrays.slo_s[:, None])] = x
        if required.all():
            break
    required = np.where(
        required > 0, required, np.ceil(rates_rps * arrays.busy_s[:, None] / UTILISATION)
    )
    return np.clip(required, 1, arrays.max_replicas[:, None])


def fixed_replicas(
    days: list[Workload],
    accepted: np.ndarray,
    latency_model: Any,
    model: ServingModel,
    now: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the smallest constant replica counts that keep the SLOs on every day, by bisection.

    Returns three arrays (jobs,): the counts found, their violation rates, and the violation rates with `now`. A rate is
    the job's largest in any simulation that `runs_on` returns. No count above `max_replicas` or above 2^DOUBLINGS times
    the latency model's prediction is tried. If no count keeps the SLO, the result is 0 with the largest count's rate.
    accepted : accepted violation rates, (jobs,).
    now : replica counts that serve now, (jobs,). An unknown count (NaN) has rate NaN. None = all counts are unknown.
    """
    arrays = arrays_of(days[-1].jobs)
    violation_rates = partial(worst_rates, model, runs_on(days, model))
    lowest = np.maximum(arrays.min_replicas, 1).astype(int)
    required = np.max([required_replicas(day, latency_model).max(axis=1) for day in days], axis=0)
    most = np.maximum(required.astype(int), lowest)
    rates = violation_rates(most)
    for _ in range(DOUBLINGS):
        if (rates <= accepted).all():
            break
        most = np.where(rates > accepted, np.minimum(2 * most, arrays.max_replicas), most).astype(
            int
        )
        rates = violation_rates(most)
    met, few, enough = rates <= accepted, lowest - 1, most.copy()
    while (np.where(met, enough - few, 0) > 1).any():
        middle = np.where(met, np.maximum((few + enough) // 2, lowest), most)
        found = violation_rates(middle)
        suffices = (found <= accepted) & met
        rates, enough = np.where(suffices, found, rates), np.where(suffices, middle, enough)
        few = np.where(suffices, few, middle)
    if now is None:
        return np.where(met, enough, 0), rates, np.full(len(rates), np.nan)
    known = np.nan_to_num(now).astype(int)
    return np.where(met, enough, 0), rates, np.where(np.isnan(now), np.nan, violation_rates(known))


def runs_on(days: Sequence[Workload], serving_model: ServingModel) -> list[tuple[Workload, Draws]]:
    """(workload, draws) of each simulation: the last of `days` is simulated SEEDS times, each other day once."""
    return [
        (day, one)
        for day in days
        for one in _draws(day, serving_model, SEEDS if day is days[-1] else 1)
    ]


def worst_rates(
    model: ServingModel, runs: Sequence[tuple[Workload, Draws]], counts: np.ndarray
) -> np.ndarray:
    """Largest violation rate of each job (jobs,) in these runs, with constant replica counts (jobs,)."""
    rates, arrays = [], arrays_of(runs[0][0].jobs)
    enough = float(np.maximum(counts, arrays.max_replicas) @ arrays.cores)
    for workload, draws in runs:
        cluster = SimulatedCluster(workload, draws, enough, counts, model)
        cluster.finish()
        late = cluster.latency_s > np.repeat(arrays.slo_s, np.diff(draws.first))
        rates.append(
            [part.mean() if len(part) else 0.0 for part in np.split(late, draws.first[1:-1])]
        )
    return np.max(rates, axis=0)


def run_with(
    policy: Policy, capacity: int, workload: Workload, draws: Draws, serving_model: ServingModel
) -> Run:
    """Simulate `policy` from equal shares of `capacity`, because jobs with one replica would miss SLOs at first."""
    initial = fair_share(workload.jobs, capacity)
    with policy_failures_raised():
        return simulate(
            workload, policy, capacity, draws=draws, serving_model=serving_model, initial=initial
        )


def worst_of(
    jobs: Sequence[Job], rates: np.ndarray, accepted: np.ndarray
) -> tuple[str, float, float]:
    """(name, violation rate, accepted rate) of the job with the largest ratio of these two rates."""
    job = int(np.argmax(rates / np.maximum(accepted, 1e-12)))
    return jobs[job].name, float(rates[job]), float(accepted[job])


def variations(
    workload: Workload,
    policy: Policy,
    capacity: int,
    counts: np.ndarray,
    accepted: np.ndarray,
    model: ServingModel,
) -> pd.DataFrame:
    """Find the worst job in each of VARIATIONS, once with `policy` on `capacity` cores and once with constant `counts`.

    The columns are `case`, those of WORST for the policy, and those of WORST with prefix `fixed_` for the counts.
    The case "without one replica" takes the largest replica's cores from `capacity`, and one replica from each count.
    """
    rows, arrays = [], arrays_of(workload.jobs)
    for case, (factor, failed) in VARIATIONS.items():
        day = replace(
            workload, requests_per_min=np.rint(factor * workload.requests_per_min).astype(np.int64)
        )
        (drawn,) = _draws(day, model, 1)
        left = max(capacity - failed * arrays.cores.max(), arrays.min_replicas @ arrays.cores)
        run = run_with(policy, int(np.ceil(left)), day, drawn, model)
        scaled = worst_of(day.jobs, violation_rate_by_job(run), accepted)
        fixed = worst_of(day.jobs, worst_rates(model, [(day, drawn)], counts - failed), accepted)
        rows.append((case, *scaled, *fixed))
    return pd.DataFrame(rows, columns=["case", *WORST, *(f"fixed_{name}" for name in WORST)])


def violations_by_capacity(
    workload: Workload,
    policy: Policy,
    capacities: tuple[int, int],
    accepted: np.ndarray,
    *,
    include: int | None = None,
    others: Sequence[tuple[Workload, Policy]] = (),
    serving_model: ServingModel = PAPER,
    report: Report = print,
) -> pd.DataFrame:
    """SLO violations of the worst job at several capacities. Bisection finds the smallest capacity that keeps the SLOs.

    Bisection replays `workload` with one random seed. The capacity found is then replayed with more seeds and on other
    days (`others`, each with its policy). It is increased if a job exceeds its accepted violation rate (`accepted`).
    `capacities` are the smallest capacity to try and a first estimate, in cores. The capacity `include` is also tried,
    unless it is below the smallest. The rates in a row (COLUMNS) are the largest of all replays at that capacity.
    """
    replayed = dict[int, tuple]()
    runs = [
        (workload, policy, drawn, f"seed {n}")
        for n, drawn in enumerate(_draws(workload, serving_model, SEEDS), 1)
    ]
    runs += [(day, one, _draws(day, serving_model, 1)[0], "another day") for day, one in others]

    def suffices(size: int, first: int, end: int) -> bool:
        """Whether every job's violation rate is accepted in the runs `first` to `end` (exclusive)."""
        for day, made, drawn, label in runs[first:end]:
            run = run_with(made, size, day, drawn, serving_model)
            rates, used = (
                violation_rate_by_job(run).round(6),
                np.sum(run.decisions.running, axis=1).mean(),
            )
            name, rate, limit = worst_of(workload.jobs, rates, accepted)
            misses = f"{100 * rate:.2f} % of its requests violate its SLO ({round(100 * limit, 6):g} % accepted)"
            report(f"{size} cores, {label}: worst job {name}, {misses}")
            if size in replayed:
                rates = np.maximum(rates, list(replayed[size][-1].values()))
            name, rate, limit = worst_of(workload.jobs, rates, accepted)
            by_job = dict(zip([job.name for job in workload.jobs], rates.tolist()))
            replayed[size] = (
                size,
                name,
                rate,
                limit,
                lost_utility(minute_utility(run)),
                used,
                by_job,
            )
            if rate > limit:
                return False
        return True

    smallest, high = capacities
    low, limit = smallest - 1, int(MOST_GROWTH * high)
    if include is not None and include >= smallest:
        low, high = (
            (low, min(high, include))
            if suffices(include, 0, 1)
            else (include, max(high, include + 1))
        )
    while not (high in replayed or suffices(high, 0, 1)):
        low, high = high, int(np.ceil(GROWTH * high))
        if high > limit:
            break
    else:  # `high` suffices with the first seed
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if suffices(middle, 0, 1) else (middle, high)
        while not suffices(high, 1 if high in replayed else 0, len(runs)) and high < limit:
            high += max(1, high // 20)
    return pd.DataFrame(replayed.values(), columns=COLUMNS).sort_values(
        "capacity_cores", ignore_index=True
    )


def _draws(workload: Workload, serving_model: ServingModel, seeds: int) -> list[Draws]:
    """The random numbers of the first `seeds` trials."""
    return [uniform_draws(workload, seed, serving_model) for seed in trial_seeds(seeds)]


def required_cores(curve: pd.DataFrame) -> int | None:
    """The smallest replayed capacity that is larger than every capacity that misses an SLO; None if there is none.

    >>> curve = pd.DataFrame({"capacity_cores": [8, 12, 16, 20], "slo_violation_rate": [0.002, 0.02, 0.001, 0]})
    >>> required_cores(curve.assign(accepted_rate=0.01))
    16
    """
    short = curve.loc[curve["slo_violation_rate"] > curve["accepted_rate"], "capacity_cores"].max()
    enough = curve.loc[~(curve["capacity_cores"] <= short), "capacity_cores"]
    return None if enough.empty else int(enough.min())
