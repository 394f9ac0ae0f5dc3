"""The capacity and the constant replica counts that the SLOs need, found by simulating days.

Faro and constant replicas are judged alike. Both serve the same requests of the same days
(`runs_on`) and keep the SLOs if, in each simulation, each job's share of late requests is at most
the accepted one (`violation_rate_by_job`, `worst_rates`). A simulation of Faro begins with the
constant replicas of its capacity (`Start`), so a policy that changes nothing has exactly their
figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from faro_lib.experiments.trials import Report, policy_failures_raised, trial_seeds
from faro_lib.metrics.measures import lost_utility, minute_utility
from faro_lib.policies import Policy
from faro_lib.simulate import Draws, Run, ServingModel, SimulatedCluster, draw, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.draws import uniform_arrivals
from faro_lib.utility import predicted_latency
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import fair_share

# Name, SLO violation rate and accepted rate of the job with the largest ratio of these two rates.
WORST = ["worst_job", "slo_violation_rate", "accepted_rate"]
# violation_rates has the violation rate of each job, {job: rate}.
COLUMNS = ["capacity_cores", *WORST, "lost_utility", "replicas_used_mean", "violation_rates"]
# Cases that `variations` simulates: name -> (factor on the requests, number of failed replicas).
VARIATIONS = {
    "as recorded": (1.0, 0),
    "with 10 % more requests": (1.1, 0),
    "with 20 % more requests": (1.2, 0),
    "without one replica": (1.0, 1),
}
# Number of simulations, each with its own seed, in which a replica count or capacity must keep the
# SLOs.
SEEDS = 3
# Maximum number of doublings of the predicted replica count, if it does not meet the SLO in
# simulation.
DOUBLINGS = 3
GROWTH = 1.25  # when a capacity does not suffice, the next one tried is larger by this factor
# The search for a sufficient capacity ends at this multiple of the first estimate.
MOST_GROWTH = 2.5
# The search for required replicas ends at this plus twice the largest offered load in erlangs.
MAX_REPLICAS = 200
# Shares of the required capacity that are also simulated, so that the curve shows what too few do.
BELOW = (0.5, 0.75)
UTILISATION = 0.7  # planned utilisation of a job whose SLO no replica count meets

Start = Callable[[int], np.ndarray]  # cores -> replicas (jobs,) with which a simulation begins


# --- constant replica counts ------------------------------------------------------------------


def required_replicas(workload: Workload, latency_model: Any) -> np.ndarray:
    """Smallest replica counts that meet the SLOs at the rate of each minute, (jobs, minutes).

    If no count meets the SLO, the count with utilisation UTILISATION is taken. Counts are clipped
    to 1..max_replicas.
    """
    jobs, arrays = workload.jobs, arrays_of(workload.jobs)
    rates_rps = workload.requests_per_min / MINUTE_S  # (jobs, minutes)
    load = rates_rps * arrays.busy_s[:, None]  # erlangs, (jobs, minutes)
    required = np.zeros(rates_rps.shape)
    for count in range(1, MAX_REPLICAS + 2 * int(load.max()) + 1):
        replicas = np.full(len(jobs), count)
        latency_s = predicted_latency(jobs, rates_rps, replicas, latency_model=latency_model)
        meets = latency_s <= arrays.slo_s[:, None]
        required[(required == 0) & meets] = count
        if required.all():
            break
    required = np.where(required > 0, required, np.ceil(load / UTILISATION))
    return np.clip(required, 1, arrays.max_replicas[:, None])


class FixedReplicas(NamedTuple):
    """Constant replica counts and the SLO violation rates with them; arrays have shape (jobs,).

    A rate is the job's largest in any simulation that `runs_on` returns.
    """

    replicas: np.ndarray  # the smallest count that keeps the SLO; 0 if none does
    rates: np.ndarray  # with `replicas`, or with the largest count tried if none keeps the SLO
    rates_now: np.ndarray  # with the counts that serve now; NaN = the count is unknown


def fixed_replicas(
    days: list[Workload],
    accepted: np.ndarray,
    latency_model: Any,
    model: ServingModel,
    now: np.ndarray | None = None,
) -> FixedReplicas:
    """Find the smallest constant replica counts that keep the SLOs on every day, by bisection.

    No count above `max_replicas` or above 2^DOUBLINGS times the latency model's prediction is
    tried.
    accepted : accepted violation rates, (jobs,).
    now : replica counts that serve now, (jobs,), NaN = unknown. None = all counts are unknown.
    """
    jobs = arrays_of(days[-1].jobs)
    runs = runs_on(days, model)
    lowest = np.maximum(jobs.min_replicas, 1).astype(int)
    predicted = np.max([required_replicas(day, latency_model).max(axis=1) for day in days], axis=0)

    # Double the predicted counts until they keep the SLOs.
    most = np.maximum(predicted.astype(int), lowest)
    rates = worst_rates(model, runs, most)
    for _ in range(DOUBLINGS):
        late = rates > accepted
        if not late.any():
            break
        most = np.where(late, np.minimum(2 * most, jobs.max_replicas), most).astype(int)
        rates = worst_rates(model, runs, most)

    # Bisect all jobs at once: `too_few` does not keep the SLO, and `enough` does.
    kept = rates <= accepted
    too_few = lowest - 1
    enough = most.copy()
    while (kept & (enough - too_few > 1)).any():
        middle = np.where(kept, np.maximum((too_few + enough) // 2, lowest), most)
        found = worst_rates(model, runs, middle)
        suffices = kept & (found <= accepted)
        rates = np.where(suffices, found, rates)
        enough = np.where(suffices, middle, enough)
        too_few = np.where(suffices, too_few, middle)

    rates_now = np.full(len(rates), np.nan)
    if now is not None:
        counts = np.nan_to_num(now).astype(int)
        rates_now = np.where(np.isnan(now), np.nan, worst_rates(model, runs, counts))
    return FixedReplicas(np.where(kept, enough, 0), rates, rates_now)


def runs_on(
    days: Sequence[Workload], serving_model: ServingModel, seeds: int = SEEDS
) -> list[tuple[Workload, Draws]]:
    """(workload, draws) of each simulation: `seeds` of the last of `days`, one of each other."""
    *others, last = days
    runs = [(day, _draws(day, serving_model, 1)[0]) for day in others]
    return runs + [(last, draws) for draws in _draws(last, serving_model, seeds)]


def worst_rates(
    model: ServingModel, runs: Sequence[tuple[Workload, Draws]], counts: np.ndarray
) -> np.ndarray:
    """Largest violation rate of each job in these runs, (jobs,), with constant `counts` (jobs,)."""
    jobs = arrays_of(runs[0][0].jobs)
    ample_cores = float(np.maximum(counts, jobs.max_replicas) @ jobs.cores)
    rates = []
    for workload, draws in runs:
        cluster = SimulatedCluster(workload, draws, ample_cores, counts, model)
        cluster.finish()
        slo_s = np.repeat(jobs.slo_s, np.diff(draws.first))  # (requests,)
        late = np.split(cluster.latency_s > slo_s, draws.first[1:-1])  # one array for each job
        rates.append([of_job.mean() if len(of_job) else 0.0 for of_job in late])
    return np.max(rates, axis=0).round(6)


# --- the capacity for Faro ---------------------------------------------------------------------


def run_with(
    policy: Policy,
    capacity: int,
    workload: Workload,
    draws: Draws,
    serving_model: ServingModel,
    start: Start | None = None,
) -> Run:
    """Simulate `policy` on `capacity` cores, from the replicas of `start`.

    None = equal shares. From one replica each, jobs would miss SLOs at first.
    """
    initial = fair_share(workload.jobs, capacity) if start is None else start(capacity)
    with policy_failures_raised():
        return simulate(
            workload,
            policy,
            capacity,
            draws=draws,
            serving_model=serving_model,
            initial=initial,
        )


def worst_of(
    jobs: Sequence[Job], rates: np.ndarray, accepted: np.ndarray
) -> tuple[str, float, float]:
    """(name, violation rate, accepted rate) of the job with the largest ratio of these rates."""
    job = int(np.argmax(rates / np.maximum(accepted, 1e-12)))
    return jobs[job].name, float(rates[job]), float(accepted[job])


def violations_by_capacity(
    workload: Workload,
    policy: Policy,
    capacities: tuple[int, int],
    accepted: np.ndarray,
    *,
    include: int | None = None,
    others: Sequence[tuple[Workload, Policy]] = (),
    start: Start | None = None,
    serving_model: ServingModel = PAPER,
    report: Report = print,
) -> pd.DataFrame:
    """SLO violations of the worst job at several capacities, one row each (COLUMNS).

    The search finds the smallest capacity that keeps the SLOs in every simulation: of `workload`
    with SEEDS random seeds, and of other days (`others`, each with its policy). The hardest
    simulation comes first, so most capacities that do not suffice are simulated only once. The
    figures in a row are the largest of all simulations at that capacity, which are all of them at
    the smallest capacity that suffices and at `include`.

    capacities : the smallest capacity to try and a first estimate, in cores.
    include : a capacity that is also tried, unless it is below the smallest.
    start : replicas with which a simulation begins; None = equal shares.
    """
    seeds = enumerate(_draws(workload, serving_model, SEEDS), 1)
    first, *more = (_Run(workload, policy, draws, f"seed {n}") for n, draws in seeds)
    of_others = [
        _Run(day, of_day, _draws(day, serving_model, 1)[0], "another day") for day, of_day in others
    ]
    search = _CapacitySearch([first, *of_others, *more], accepted, serving_model, report, start)

    smallest, estimate = capacities
    if include is not None and include >= smallest:
        search.simulate_all(include)
    found = search.smallest(smallest, max(smallest, estimate), limit=int(MOST_GROWTH * estimate))
    if found is None:
        search.simulate_all(max(search.results))
    else:
        for share in BELOW:
            search.suffices(max(smallest, int(share * found)))
    return search.curve()


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """A day to simulate: its requests, the policy, the random numbers, and a label for progress."""

    workload: Workload
    policy: Policy
    draws: Draws
    label: str


class _Result(NamedTuple):
    """What a simulation at one capacity shows."""

    rates: np.ndarray  # violation rate of each job, (jobs,)
    lost_utility: float
    replicas_used: float  # mean over the day


@dataclass(slots=True, eq=False)
class _CapacitySearch:
    """Simulations at several capacities. Each run is simulated at most once at a capacity.

    Attributes
    ----------
    runs : all runs, the hardest first as far as it is known.
    results : {capacity: {run: its result}}.
    """

    runs: list[_Run]
    accepted: np.ndarray
    serving_model: ServingModel
    report: Report
    start: Start | None
    results: dict[int, dict[_Run, _Result]] = field(default_factory=dict)

    def smallest(self, smallest: int, estimate: int, limit: int) -> int | None:
        """The smallest capacity that suffices and is above every one that was found too small.

        None if it would exceed `limit` and no larger capacity is known to suffice.
        """
        tried = {size: self.suffices(size) for size in list(self.results)}
        too_few = max((size for size in tried if not tried[size]), default=smallest - 1)
        enough = min((size for size in tried if size > too_few), default=None)
        if too_few < estimate and (enough is None or estimate < enough):
            if self.suffices(estimate):
                enough = estimate
            else:
                too_few = estimate
        while True:
            size = self._smallest_in(self.runs[0], too_few, enough, limit)
            if size is None or self.suffices(size):
                return size
            too_few = size

    def _smallest_in(self, run: _Run, too_few: int, enough: int | None, limit: int) -> int | None:
        """The smallest capacity above `too_few`, at most `enough`, that suffices in one run."""
        while enough is None:
            size = max(too_few + 1, int(np.ceil(GROWTH * too_few)))
            if size > limit:
                return None
            if self.suffices_in(run, size):
                enough = size
            else:
                too_few = size
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self.suffices_in(run, middle):
                enough = middle
            else:
                too_few = middle
        return enough

    def suffices(self, size: int) -> bool:
        """Whether `size` suffices in every run; ends at the first in which it does not."""
        simulated = self.results.setdefault(size, {})
        known_first = sorted(self.runs, key=lambda run: run not in simulated)
        enough = all(self.suffices_in(run, size) for run in known_first)
        self._hardest_first(size)
        return enough

    def simulate_all(self, size: int) -> None:
        """Simulate every run at `size`."""
        for run in self.runs:
            self.suffices_in(run, size)
        self._hardest_first(size)

    def _hardest_first(self, size: int) -> None:
        """Order the runs: by the largest capacity that failed, then by the worst job at `size`."""
        limits = np.maximum(self.accepted, 1e-12)
        of_size = self.results[size]

        def hardness(run: _Run) -> tuple[int, float]:
            failed = [n for n, of_n in self.results.items() if run in of_n and self._fails(run, n)]
            share = (of_size[run].rates / limits).max() if run in of_size else 0.0
            return max(failed, default=0), share

        self.runs.sort(key=hardness, reverse=True)

    def suffices_in(self, run: _Run, size: int) -> bool:
        """Whether every job's violation rate in this run is accepted."""
        of_size = self.results.setdefault(size, {})
        if run not in of_size:
            of_size[run] = self._simulated(run, size)
        return not self._fails(run, size)

    def _fails(self, run: _Run, size: int) -> bool:
        """Whether a job has more late requests than accepted in this run, simulated before."""
        return bool((self.results[size][run].rates > self.accepted).any())

    def _simulated(self, run: _Run, size: int) -> _Result:
        model, jobs = self.serving_model, run.workload.jobs
        result = run_with(run.policy, size, run.workload, run.draws, model, self.start)
        rates = violation_rate_by_job(result).round(6)  # (jobs,)
        name, rate, limit = worst_of(jobs, rates, self.accepted)
        self.report(
            f"{size} cores, {run.label}: worst job {name}, {100 * rate:.2f} % of its requests "
            f"violate its SLO ({round(100 * limit, 6):g} % accepted)"
        )
        used = np.sum(result.decisions.running, axis=1).mean()
        return _Result(rates, lost_utility(minute_utility(result)), float(used))

    def curve(self) -> pd.DataFrame:
        """One row for each capacity (COLUMNS), with the largest figures of its simulations."""
        jobs = self.runs[0].workload.jobs
        rows = []
        for size, of_size in sorted(self.results.items()):
            rates, lost, used = (np.max(values, axis=0) for values in zip(*of_size.values()))
            by_job = dict(zip([job.name for job in jobs], rates.tolist()))
            worst = worst_of(jobs, rates, self.accepted)
            rows.append((size, *worst, float(lost), float(used), by_job))
        return pd.DataFrame(rows, columns=COLUMNS)


def required_cores(curve: pd.DataFrame) -> int | None:
    """The smallest simulated capacity that is larger than every capacity that misses an SLO.

    None if there is none.

    >>> curve = pd.DataFrame({"capacity_cores": [8, 12, 16, 20], "accepted_rate": 0.01})
    >>> required_cores(curve.assign(slo_violation_rate=[0.002, 0.02, 0.001, 0]))
    16
    """
    short = curve.loc[curve["slo_violation_rate"] > curve["accepted_rate"], "capacity_cores"].max()
    enough = curve.loc[~(curve["capacity_cores"] <= short), "capacity_cores"]
    return None if enough.empty else int(enough.min())


# --- Faro and constant replicas beside each other ------------------------------------------------


def variations(
    workload: Workload,
    policy: Policy,
    capacity: int,
    counts: np.ndarray,
    accepted: np.ndarray,
    model: ServingModel,
    start: Start | None = None,
) -> pd.DataFrame:
    """The worst job in each of VARIATIONS, with `policy` on `capacity` cores and with `counts`.

    `start` has the replicas with which the policy begins; None = equal shares.

    The columns are `case`, those of WORST for the policy, and those of WORST with prefix `fixed_`
    for constant `counts`. The case "without one replica" takes the largest replica's cores from
    `capacity`, and one replica from each count.
    """
    jobs = arrays_of(workload.jobs)
    rows = []
    for case, (factor, failed) in VARIATIONS.items():
        requests = np.rint(factor * workload.requests_per_min).astype(np.int64)
        times = workload.arrival_s if factor == 1 else ()
        day = replace(workload, requests_per_min=requests, arrival_s=times)
        (draws,) = _draws(day, model, 1)
        least = jobs.min_replicas @ jobs.cores
        left = max(capacity - failed * jobs.cores.max(), least)
        run = run_with(policy, int(np.ceil(left)), day, draws, model, start)
        scaled = worst_of(day.jobs, violation_rate_by_job(run).round(6), accepted)
        fixed = worst_of(day.jobs, worst_rates(model, [(day, draws)], counts - failed), accepted)
        rows.append((case, *scaled, *fixed))
    return pd.DataFrame(rows, columns=["case", *WORST, *(f"fixed_{name}" for name in WORST)])


def _draws(workload: Workload, serving_model: ServingModel, seeds: int) -> list[Draws]:
    """The random numbers of the first `seeds` trials."""
    return [uniform_draws(workload, seed, serving_model) for seed in trial_seeds(seeds)]


def uniform_draws(workload: Workload, seed: int, serving_model: ServingModel) -> Draws:
    """A trial's random numbers as drawn by `draw`, but arrivals are uniform within each minute.

    Those of a job with bursts, and exact times, stay as `draw` has them.
    """
    draws = draw(workload, seed, router=serving_model.router)
    if workload.arrival_s:
        return draws
    rng = np.random.default_rng([seed, 4])
    arrival_s = uniform_arrivals(workload.requests_per_min, rng)
    for job, a, b in zip(workload.jobs, draws.first[:-1], draws.first[1:]):
        if job.bursty:
            arrival_s[a:b] = draws.arrival_s[a:b]
    return replace(draws, arrival_s=arrival_s)


def violation_rate_by_job(run: Run) -> np.ndarray:
    """Share of each job's requests that were dropped or missed the SLO, (jobs,)."""
    violations = (run.dropped + run.slo_missed).sum(axis=1)
    return violations / np.maximum(run.requests.sum(axis=1), 1)


def share_of_accepted(curve):
    """SLO violation rates of `curve` by the accepted ones, or by 0.01 % if that is more."""
    return curve["slo_violation_rate"] / np.maximum(curve["accepted_rate"], 1e-4)
