"""`faro simulate`: the evaluation day of a workload under policies."""

from __future__ import annotations

import json as json_format
import sys
from typing import Annotated, Any

import typer


def simulate(
    workload: Annotated[str, typer.Option(help="synthetic, faro-10jobs, or the path of a CSV.")] = "synthetic",
    jobs: Annotated[str | None, typer.Option(help="A table of jobs, .csv or .yaml.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Who decides; may be given several times. [default: FairShare, AIAD, Faro-Sum]"),
    ] = None,
    replicas: Annotated[int, typer.Option(help="Size of the cluster.")] = 32,
    trials: Annotated[int, typer.Option(help="Trials, each with its own seed.")] = 1,
    minutes: Annotated[int | None, typer.Option(help="How much of the day; by default all of it.")] = None,
    forecaster: Annotated[str, typer.Option(help="What predictive policies decide by.")] = "ar",
    posterior: Annotated[str | None, typer.Option(help="Of forecaster bayes: forecast/posterior.npz of a run.")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A file of yours that registers what you add.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a policy and trial.")] = False,
) -> None:
    """Replay the evaluation day of a workload under policies, and say what each one loses."""
    from faro_lib import config, forecast
    from faro_lib.experiments.compare import compare
    from faro_lib.pipeline.check import learners, without_learning
    from faro_lib.pipeline.check import names as check_names
    from faro_lib.policies import PolicyContext, make
    from faro_lib.simulate.measure import measure
    from faro_lib.workload.tables import load_workload

    if replicas < 1:
        raise ValueError(f"replicas={replicas} must be at least 1")
    if (forecaster == "bayes") != (posterior is not None):
        raise ValueError(
            "forecaster='bayes' and --posterior FILE.npz need each other (forecast/posterior.npz of a run)"
        )
    names = policy or ["FairShare", "AIAD", "Faro-Sum"]
    told = dict(workload=workload, jobs=jobs, policies=names, capacities=[replicas], trials=trials, minutes=minutes)
    asked = config.load(told | dict(plugins=plugin or []))
    check_names(asked)
    traces = load_workload(asked.workload, asked.jobs, raw=asked.raw, synthetic=asked.synthetic.model_dump())
    if not traces.days:
        without_learning(asked, traces.jobs)
    fitted: dict[str, Any] = {"posterior": posterior} if posterior else {}
    context = PolicyContext(
        traces.jobs,
        forecaster=forecast.fit(forecaster, traces, **fitted) if learners(names, traces.jobs) else None,
        latency_model=measure(traces.jobs),
    )
    day = traces.workload().between(0, minutes or traces.evaluation.shape[-1])
    policies = {name: make(name, context) for name in names}
    tables = compare(day, policies, replicas, trials, limit=False, report=lambda line: print(line, file=sys.stderr))
    if as_json:
        for row in tables.summary.to_dict("records"):
            print(json_format.dumps(row))
        return
    print(_table(tables.summary))


def _table(summary) -> str:
    """Policy, and mean (± standard deviation over trials) of what it lost."""
    lines = [f"{'policy':<24}{'lost utility':>18}{'SLO violations':>20}{'dropped':>18}"]
    for policy, rows in summary.groupby("policy", sort=False):
        cells = [_spread(rows["lost_utility"], "{:.3f}")]
        cells += [_spread(rows[column], "{:.2%}") for column in ("slo_violation_rate", "drop_rate")]
        lines.append(f"{policy:<24}{cells[0]:>18}{cells[1]:>20}{cells[2]:>18}")
    return "\n".join(lines)


def _spread(values, shape: str) -> str:
    mean = shape.format(values.mean())
    return mean if len(values) < 2 else f"{mean} ± {shape.format(values.std())}"
