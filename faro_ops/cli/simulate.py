"""`faro simulate`: compare policies on the evaluation day of a workload."""

import json
from dataclasses import replace
from typing import Annotated, Any

from faro_ops.cli.shared import (
    DEFAULT_POLICY,
    AtRandom,
    OptionalJobs,
    Plugins,
    cores,
    option,
    text_table,
)
from faro_ops.log import say

COMPARED = ("FairShare", "AIAD", "Static", DEFAULT_POLICY)
MAX_TRIALS = 10_000


def simulate(
    workload: Annotated[
        str,
        option("synthetic, faro-10jobs, a CSV of counts, or a log with a row per request."),
    ] = "synthetic",
    jobs: OptionalJobs = None,
    policy: Annotated[
        list[str] | None, option("Policy; repeatable.", default=", ".join(COMPARED))
    ] = None,
    capacity: Annotated[int, cores("Cluster capacity in cores.")] = 32,
    trials: Annotated[int, option("Trials per policy, each with its own seed.")] = 1,
    minutes: Annotated[int | None, option("Minutes to simulate.", default="the whole day")] = None,
    forecaster: Annotated[str, option("Forecaster of the policies that use one.")] = "auto",
    posterior: Annotated[
        str | None, option("Posterior (.npz) for forecaster bayes or auto.")
    ] = None,
    at_random: AtRandom = False,
    plugin: Plugins = None,
    watch: Annotated[
        bool,
        option(
            "Draw the first trial of each policy tick by tick, then print the table.", "--watch"
        ),
    ] = False,
    as_json: Annotated[
        bool, option("Print one JSON object per policy and trial.", "--json")
    ] = False,
) -> None:
    """Simulate a day, and print the utility that each policy loses.

    Faro and Static begin with the best constant replica counts of the training days, FairShare with
    equal shares, and other policies with the minimum of each job.
    """
    import pandas as pd

    from faro_lib import forecast
    from faro_lib.experiments.checks import check_none_learns, learners, over_the_router
    from faro_lib.experiments.trials import run_trials, trial_draws, trial_seeds
    from faro_lib.metrics.measures import summarize
    from faro_lib.policies import Faro, PolicyContext, factory_of, make
    from faro_lib.registry import load_plugins
    from faro_lib.simulate import simulate as simulate_day
    from faro_lib.simulate.cluster import PAPER
    from faro_lib.simulate.measure import measure
    from faro_lib.workload.log_traces import read_workload, tell_counts
    from faro_lib.workload.readers import is_table
    from faro_lib.workload.shares import at_least_one_each

    if posterior and forecaster not in ("bayes", "auto"):
        raise ValueError(
            "--posterior FILE.npz (forecast/posterior.npz of a run) "
            "is for forecaster 'bayes' or 'auto'"
        )
    names = policy or list(COMPARED)
    _check_options(names, trials, minutes)
    load_plugins(plugin or [])
    for name in names:
        factory_of(name)  # raise an error for an unknown policy before the traces are read

    traces = read_workload(workload, jobs, say, bursts=not at_random)
    if jobs is None and capacity < len(traces.jobs):
        few = f"capacity: {capacity} replicas are fewer than the {len(traces.jobs)} jobs"
        raise ValueError(f"{few} of {workload}")
    at_least_one_each(traces.jobs, capacity)
    if not traces.days:
        check_none_learns(names, traces.jobs, workload)

    if any(job.replica.kind == "disaggregated" for job in traces.jobs):
        from faro_ops.advise.recommend.pairs import with_pairs

        traces = replace(traces, jobs=with_pairs(traces.jobs, capacity, PAPER, say))
    context = PolicyContext(traces.jobs, traces=traces)
    if learners(names, traces.jobs):
        fitted: dict[str, Any] = {"posterior": posterior} if posterior else {}
        learned = forecast.fit(forecaster, traces, **fitted)
        context = replace(context, forecaster=learned, latency_model=measure(traces.jobs))
    policies = {name: make(name, context) for name in names}
    policies = {
        name: replace(made, starts_from_past=True) if isinstance(made, Faro) else made
        for name, made in policies.items()
    }

    day = traces.workload().between(0, minutes or traces.evaluation.shape[-1])
    if capped := over_the_router(PAPER, day.jobs, day.requests_per_min):
        say(capped)
    if is_table(workload) and not day.arrival_s and not at_random:
        tell_counts(day.jobs, say)
    if watch:
        from faro_ops.cli.view import watching

        for name, made in policies.items():
            with watching(day.jobs, f"{name}, simulated") as draw:
                simulate_day(
                    day,
                    made,
                    capacity,
                    trial_seeds(1)[0],
                    on_step=draw,
                )
    runs = run_trials(
        day,
        policies,
        capacity,
        trial_draws(day, trials),
        report=say,
    )
    summary = pd.DataFrame([trial.key | summarize(trial.run) for trial in runs])
    if as_json:
        print(*map(json.dumps, summary.to_dict("records")), sep="\n")
        return
    print(text_table([_cells(name, rows) for name, rows in summary.groupby("policy", sort=False)]))


def _check_options(policies: list[str], trials: int, minutes: int | None) -> None:
    """Raise ValueError if a policy is named twice, or if a number is outside of its range."""
    for name in policies:
        if policies.count(name) > 1:
            raise ValueError(f"policies={policies} has {name!r} more than once")
    if not 1 <= trials <= MAX_TRIALS:
        raise ValueError(f"trials={trials} should be from 1 to {MAX_TRIALS}")
    if minutes is not None and minutes < 1:
        raise ValueError(f"minutes={minutes} should be greater than or equal to 1")


def _cells(policy: str, rows) -> dict[str, str]:
    """One policy's row of the table: means over its trials, with their standard deviations."""
    cells = {"policy": policy}
    columns = {
        "lost utility": "lost_utility",
        "SLO violations": "slo_violation_rate",
        "dropped": "drop_rate",
    }
    for label, column in columns.items():
        spec = ".3f" if column == "lost_utility" else ".2%"
        spread = f" ± {rows[column].std():{spec}}" if len(rows) > 1 else ""
        cells[label] = f"{rows[column].mean():{spec}}{spread}"
    return cells
