"""The capacity that the SLOs need, from replays of the last day at several capacities, and the curve as text."""

from typing import Any

import numpy as np
import pandas as pd

from faro_lib.experiments.trials import Report, run_trials, trial_seeds, uniform_draws
from faro_lib.metrics.measures import lost_utility, minute_utility, share_of_accepted, violation_rate_by_job
from faro_lib.policies import Policy
from faro_lib.policies.baselines import fair_share
from faro_lib.simulate import ServingModel, SimulatedCluster
from faro_lib.simulate.cluster import PAPER
from faro_lib.utility import predicted_latency
from faro_lib.workload import Traces, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S

# worst_job has the largest ratio of violations to its accepted_rate; slo_violation_rate is the violation rate of that job.
COLUMNS = ["capacity_cores", "slo_violation_rate", "worst_job", "accepted_rate", "lost_utility", "replicas_used_mean"]
COLUMNS += ["violation_rates"]  # violation rate of each job, {job: rate}
RUN_UP_MINUTES = 15  # replayed before the busiest minutes, so that these do not begin with too few replicas
DOUBLINGS = 3  # how many times the search for a sufficient constant count may double that of the latency model
COARSE = 7  # number of evenly spaced capacities to replay before the bisection
PEAK_MINUTES = 15  # a job's peak is its largest sum of requests over this many consecutive minutes
HEADROOM = 1.25  # the largest replayed capacity is this factor times the cores that the worst minute needs
CLOSE = 0.8  # share of the accepted violations above which a capacity is close to the limit
MAX_REPLICAS = 200  # the search for required replicas ends at this plus twice the largest offered load in erlangs
UTILISATION = 0.7  # planned utilisation of a job whose SLO no replica count meets


def busiest(traces: Traces, minutes: int) -> tuple[Traces, int]:
    """(traces of the busiest `minutes` in a row, which begin with a run-up; the minute at which they begin).

    Training days are rotated to begin at that minute, too.
    """
    arrays = arrays_of(traces.jobs)
    day = (arrays.service_time_s * arrays.cores) @ traces.evaluation[0]
    if minutes >= len(day):
        return traces, 0
    run_up = min(RUN_UP_MINUTES, minutes // 2)
    busy = np.convolve(day[run_up:], np.ones(minutes - run_up), "valid")  # load of each window after its run-up
    first = int(busy.round(6).argmax())  # rounded, so that the first of equal sums wins
    rolled = np.roll(traces.train, -first, axis=-1)
    return Traces(traces.jobs, rolled, traces.evaluation[..., first : first + minutes]), first


def peaks_outside(traces: Traces, first: int, minutes: int) -> dict[str, int]:
    """Job -> minute of the day's peak, if it exceeds that of the replayed part by 10 % plus 3 Poisson standard deviations."""
    day = np.array([np.convolve(row, np.ones(PEAK_MINUTES), "same") for row in traces.evaluation[0]])
    inside = day[:, first : first + minutes].max(axis=1)
    over = day.max(axis=1) > 1.1 * inside + 3 * np.sqrt(inside)
    return {job.name: int(at) for job, at, larger in zip(traces.jobs, day.argmax(axis=1), over) if larger}


def required_replicas(workload: Workload, latency_model: Any) -> np.ndarray:
    """Smallest replica counts that meet the SLOs at each minute's rate, (jobs, minutes), from 1 to a job's maximum.

    If none meets the SLO, because even an idle replica is too slow, it is the count whose utilisation is UTILISATION.
    """
    arrays, rates_rps = arrays_of(workload.jobs), workload.requests_per_min / MINUTE_S
    required = np.zeros(rates_rps.shape)
    busy = int((rates_rps * [[job.busy_s] for job in workload.jobs]).max())
    for x in range(1, MAX_REPLICAS + 2 * busy + 1):
        replicas = np.full(len(workload.jobs), x)
        latency_s = predicted_latency(workload.jobs, rates_rps, replicas, latency_model=latency_model)
        required[(required == 0) & (latency_s <= arrays.slo_s[:, None])] = x
        if required.all():
            break
    required = np.where(required > 0, required, np.ceil(rates_rps * arrays.service_time_s[:, None] / UTILISATION))
    return np.clip(required, 1, arrays.max_replicas[:, None])


def fixed_replicas(
    workload: Workload,
    accepted: np.ndarray,
    latency_model: Any,
    serving_model: ServingModel = PAPER,
    now: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(smallest constant replica counts that keep the SLOs, violation rates with them, and with `now`), (jobs,) each.

    A count is found by bisection of simulations. It is 0 if even 2^DOUBLINGS times the latency model's count is too few; the
    violation rate is then that of the larger count. `accepted` is as in `violations_by_capacity`. `now` has the replica
    counts that serve now; an unknown one is NaN, and so is its violation rate. None means that all are unknown.
    """
    arrays, draws = arrays_of(workload.jobs), uniform_draws(workload, trial_seeds(1)[0], serving_model)

    def violation_rates(counts: np.ndarray) -> np.ndarray:
        cluster = SimulatedCluster(workload, draws, float(counts @ arrays.cores), counts, serving_model)
        cluster.finish()
        late = cluster.latency_s > np.repeat(arrays.slo_s, np.diff(draws.first))
        return np.array([part.mean() if len(part) else 0.0 for part in np.split(late, draws.first[1:-1])])

    lowest = np.maximum(arrays.min_replicas, 1).astype(int)
    most = np.maximum(required_replicas(workload, latency_model).max(axis=1).astype(int), lowest)
    rates = violation_rates(most)
    for _ in range(DOUBLINGS):
        if (rates <= accepted).all():
            break
        most = np.where(rates > accepted, np.minimum(2 * most, arrays.max_replicas), most).astype(int)
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
    serving = np.clip(np.nan_to_num(now), lowest, arrays.max_replicas).astype(int)
    return np.where(met, enough, 0), rates, np.where(serving == now, violation_rates(serving), np.nan)


def capacity_range(workload: Workload, latency_model: Any) -> tuple[int, int]:
    """(smallest, largest) capacity to replay: cores of the minimum replicas, and HEADROOM x what the worst minute needs."""
    arrays = arrays_of(workload.jobs)
    most = (arrays.cores @ required_replicas(workload, latency_model)).max()
    minimum = int(np.ceil(np.maximum(arrays.min_replicas, 1) @ arrays.cores))
    return minimum, max(minimum + 1, int(np.ceil(HEADROOM * most)))


def violations_by_capacity(
    workload: Workload,
    policy: Policy,
    capacities: tuple[int, int],
    accepted: np.ndarray,
    *,
    include: int | None = None,
    serving_model: ServingModel = PAPER,
    report: Report = print,
) -> pd.DataFrame:
    """SLO violations of the worst job at several capacities; bisection finds the smallest capacity that suffices.

    `capacities` are the smallest and the largest in cores (`capacity_range`); `include` is a further one, ignored if it is
    below the smallest. `accepted` is the accepted violation rate of each job, (jobs,). The data frame has COLUMNS and is
    sorted by capacity.
    """
    smallest, largest = capacities
    draws = [uniform_draws(workload, trial_seeds(1)[0], serving_model)]
    replayed: dict[int, tuple] = {}  # capacity -> its row

    def suffices(size: int) -> bool:
        if size not in replayed:
            # Starting with one replica per job, as the paper does, would miss SLOs until the first cold start has ended.
            initial = fair_share(workload.jobs, size)
            made = {policy.name: policy}
            (trial,) = run_trials(workload, made, size, draws, serving_model=serving_model, initial=initial)
            rates, used = violation_rate_by_job(trial.run), np.sum(trial.run.decisions.running, axis=1).mean()
            worst = int(np.argmax(rates / np.maximum(accepted, 1e-12)))
            name, rate, limit = workload.jobs[worst].name, float(rates[worst]), float(accepted[worst])
            by_job = dict(zip([job.name for job in workload.jobs], rates.round(6).tolist()))
            replayed[size] = size, rate, name, limit, lost_utility(minute_utility(trial.run)), used, by_job
            misses = f"{100 * rate:.2f} % of its requests violate its SLO ({round(100 * limit, 6):g} % accepted)"
            report(f"{size} cores: worst job {name}, {misses}")
        _, rate, _, limit, *_ = replayed[size]
        return rate <= limit

    for size in np.unique(np.linspace(smallest, largest, COARSE).round().astype(int)):
        suffices(int(size))
    if include is not None and include >= smallest:
        suffices(include)
    enough = min((size for size in replayed if suffices(size)), default=None)
    if enough is not None:
        short = max((size for size in replayed if size < enough), default=enough - 1)
        while enough - short > 1:
            middle = (enough + short) // 2
            enough, short = (middle, short) if suffices(middle) else (enough, middle)
    return pd.DataFrame(replayed.values(), columns=COLUMNS).sort_values("capacity_cores", ignore_index=True)


def margin(curve: pd.DataFrame) -> str:
    """Advice to plan more than the required capacity if its violations are close to the accepted ones; "" otherwise."""
    share, required = share_of_accepted(curve), required_cores(curve)
    if required is None or (used := share[curve["capacity_cores"] == required].iloc[0]) <= CLOSE:
        return ""
    roomier = curve.loc[(curve["capacity_cores"] > required) & (share <= 0.5), "capacity_cores"]
    plan = "plan more" if roomier.empty else f"plan {roomier.min()}"
    of = f"{100 * used:.0f} % of the accepted violations, with one random seed"
    return f"{required} cores are close to the limit, {of}; {plan} for a margin (docs/limits.md)"


def required_cores(curve: pd.DataFrame) -> int | None:
    """The smallest replayed capacity at which the violation rate of every job is accepted; None if there is none.

    >>> curve = pd.DataFrame({"capacity_cores": [8, 12, 16], "slo_violation_rate": [0.3, 0.02, 0.001]})
    >>> required_cores(curve.assign(accepted_rate=0.01))
    16
    """
    enough = curve.loc[curve["slo_violation_rate"] <= curve["accepted_rate"], "capacity_cores"]
    return None if enough.empty else int(enough.min())


def knee(curve: pd.DataFrame) -> int | None:
    """The capacity at the knee of the curve: its point farthest below the line between its ends; None if no point is below.

    The y axis is `share_of_accepted`. Both axes are scaled to 0..1
    (Satopaa et al., "Finding a 'Kneedle' in a Haystack", 2011, without smoothing).

    >>> curve = pd.DataFrame({"capacity_cores": [4, 8, 12, 16, 20], "slo_violation_rate": [0.9, 0.4, 0.05, 0.02, 0.0]})
    >>> knee(curve.assign(accepted_rate=0.01))
    12
    """
    x, y = curve["capacity_cores"].to_numpy(float), share_of_accepted(curve).to_numpy()
    if len(x) < 3 or y[0] <= y[-1]:
        return None
    below = (1 - (x - x[0]) / (x[-1] - x[0])) - (y - y[-1]) / (y[0] - y[-1])
    return int(x[below.argmax()]) if below.max() > 0 else None


def met_by(violations: float | None) -> str:
    return "meets every SLO" if violations is None else f"meets {100 * violations:g} % for every job"


def notes(violations: float | None, knee: int | None = None, needed: int | None = None) -> dict[int, str]:
    """Capacity -> the text that marks it in the curve.

    >>> notes(None, knee=12, needed=12), notes(0.05, knee=None, needed=16)
    ({12: 'knee, meets every SLO'}, {16: 'meets 5 % for every job'})
    """
    texts: dict[int, str] = {}
    for capacity, text in ((knee, "knee"), (needed, met_by(violations))):
        if capacity is not None:
            texts[capacity] = f"{texts[capacity]}, {text}" if capacity in texts else text
    return texts


def bars(curve: pd.DataFrame, notes: dict[int, str], width: int = 40) -> str:
    """The curve as text: for each capacity a bar, violations in % of the accepted rate, the worst job and any note.

    >>> curve = pd.DataFrame({"capacity_cores": [8, 16], "slo_violation_rate": [0.5, 0.01], "worst_job": "a"})
    >>> print(bars(curve.assign(accepted_rate=0.02), {16: "meets 2 %"}, 8))
           8  ████████ 2500 % (a: 50 of 2 %)
          16  ▏ 50 % (a: 1 of 2 %)  <- meets 2 %
    """
    shares = share_of_accepted(curve)
    most = max(shares.max(), 1e-9)
    lines = []
    for row, share in zip(curve.to_dict("records"), shares):
        capacity, rate, accepted = row["capacity_cores"], row["slo_violation_rate"], row["accepted_rate"]
        eighths = max(round(8 * width * share / most), int(share > 0))
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        note = f"  <- {notes[capacity]}" if capacity in notes else ""
        of = f"{row['worst_job']}: {round(100 * rate, 2):g} of {round(100 * accepted, 4):g} %"
        lines.append(f"{capacity:8d}  {bar} {100 * share:.0f} % ({of}){note}")
    return "\n".join(lines)
