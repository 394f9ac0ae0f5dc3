"""What all experiments share: the inputs of policies, and their runs on the same requests."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib import forecast
from faro_lib.control import PolicyFailed
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext
from faro_lib.queueing import LatencyTable
from faro_lib.simulate import TRIAL_SEEDS, Draws, Run, ServingModel, draw, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces, Workload

Report = Callable[[str], None]
# A context manager that turns the control loop's warning PolicyFailed into an exception.
policy_failures_raised = partial(warnings.catch_warnings, action="error", category=PolicyFailed)


def policy_context(
    traces: Traces,
    results: str | Path | None = None,
    forecaster: str = "auto",
    report: Report = print,
    latency_model: Callable[[], LatencyTable] | None = None,
) -> PolicyContext:
    """Inputs of an experiment's policies.

    The forecaster is fitted to the training days. Without such days, it is None.

    results : folder that may contain forecast/posterior.npz and queueing/measured.npz. Forecasters
        `auto` and `bayes` use the posterior. Latencies come from the table measured.npz, or are
        simulated if that file is missing.
    latency_model : a function that returns the table to use instead.
    """
    options: dict[str, Any] = {}
    measured = None  # the file of the measured table
    if results:
        posterior = Path(results) / "forecast" / "posterior.npz"
        if traces.days > 1 and posterior.exists() and forecaster in ("auto", "bayes"):
            options["posterior"] = posterior
        measured = Path(results) / "queueing" / "measured.npz"
    latencies: LatencyTable | Callable[[], LatencyTable]
    if latency_model:
        latencies = latency_model
    elif measured and measured.exists():
        latencies = LatencyTable.load(measured)
    else:
        latencies = measure(traces.jobs)
    fitted = forecast.fit(forecaster, traces, **options) if traces.days else None
    report(f"forecaster: {forecaster if fitted else None}; latency: measured")
    return PolicyContext(traces.jobs, fitted, latency_model=latencies, traces=traces)


def trial_seeds(trials: int) -> tuple[int, ...]:
    """Seeds of the trials: the five published ones, then 63, 64, ...

    >>> trial_seeds(6)
    (24, 32, 40, 42, 62, 63)
    """
    return (*TRIAL_SEEDS, *(TRIAL_SEEDS[-1] + n for n in range(1, trials)))[:trials]


def trial_draws(workload: Workload, trials: int, scv_factor: float = 1.0) -> Iterator[Draws]:
    """Yield the random numbers of each trial, from its seed in `trial_seeds`."""
    for seed in trial_seeds(trials):
        yield draw(workload, seed, scv_factor=scv_factor)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of one policy; `number` counts trials from 0."""

    policy: str
    number: int
    run: Run

    @property
    def key(self) -> dict[str, Any]:
        """The columns (name -> value) that identify this run in every table."""
        return {"policy": self.policy, "capacity_cores": self.run.capacity, "trial": self.number}


def run_trials(
    workload: Workload,
    policies: Mapping[str, Policy],
    capacity: float,
    draws: Iterable[Draws],
    *,
    serving_model: ServingModel = PAPER,
    initial: np.ndarray | None = None,
    report: Report | None = None,
) -> Iterator[Trial]:
    """Run every policy on the same requests, trial by trial, on `capacity` cores.

    `initial` has the replicas of each job at the start, shape (jobs,). None means each policy's
    default. If a policy fails, PolicyFailed is raised, because a run that uses fallback decisions
    would not measure the policy.
    """
    for number, of_trial in enumerate(draws):
        for name, policy in policies.items():
            with policy_failures_raised():
                run = simulate(
                    workload,
                    policy,
                    capacity,
                    draws=of_trial,
                    serving_model=serving_model,
                    initial=initial,
                )
            if report:
                found = summarize(run)
                lost, violations = found["lost_utility"], found["slo_violation_rate"]
                losses = f"lost utility {lost:.3f}, violations {violations:.2%}"
                report(f"{name} at {capacity} cores, trial {number + 1}: {losses}")
            yield Trial(name, number, run)
