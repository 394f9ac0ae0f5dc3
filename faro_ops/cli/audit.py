"""`faro audit`: simulate what the present autoscalers did, and what other policies would have done with the same requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from faro_lib.workload.jobs import DAY_MINUTES
from faro_ops.cli import shared
from faro_ops.cli.shared import cores, option, say, text_table

if TYPE_CHECKING:
    from faro_ops.recommend.audit import Audit

NOT_REPRODUCED = 3  # exit status if the simulator reproduces the records of no service


def audit(
    workload: Annotated[
        str | None,
        option(
            "Table: job, requests, replicas, latency_p99_s (or other latencies), time or minute."
        ),
    ] = None,
    prometheus: shared.PrometheusAddress = None,
    prometheus_token: shared.PrometheusToken = None,
    query: Annotated[
        str | None, option("PromQL for requests per minute, one series per job.")
    ] = None,
    replicas_query: Annotated[str | None, option("PromQL for the replicas that serve.")] = None,
    latency: Annotated[
        list[str] | None,
        option("0.99=PROMQL or mean=PROMQL for latencies in seconds over one minute; repeatable."),
    ] = None,
    label: Annotated[str | None, option("Label of the series that names the job.")] = None,
    hours: Annotated[int, option("Length of the history from Prometheus.")] = 24,
    journal: Annotated[
        str | None, option("Journal of `faro run`, with or without --apply.")
    ] = None,
    jobs: shared.OptionalJobs = None,
    capacity: Annotated[
        int | None, cores("Cores for the reproduced services.", default="the most they used")
    ] = None,
    policy: Annotated[
        list[str] | None,
        option("Policy to compare; repeatable.", default="FairShare, HPA, Faro-Sum"),
    ] = None,
    forecaster: Annotated[str | None, option("Forecaster.", default="auto")] = None,
    dispatch: Annotated[
        str, option("least-outstanding, or round-robin (as in the paper).")
    ] = "least-outstanding",
    plugin: shared.Plugins = None,
    plot: Annotated[str | None, option("Draw the pictures into this .png or .html file.")] = None,
    as_json: Annotated[bool, option("Print one JSON object instead of tables.", "--json")] = False,
) -> int:
    """Replay recorded load as it was served, and with other policies.

    Give one of --workload, --prometheus and --journal. Policies are compared on the services whose recorded minutes the
    simulator reproduces. For any other service, the output says why it is left out.

    Exit status: 0 success; 2 invalid input; 3 no service was reproduced; 130 interrupted.
    """
    # One long function, because all its parts use options, which typer reads from the signature.
    from faro_lib.registry import load_plugins
    from faro_lib.simulate import ServingModel
    from faro_ops.recommend.audit import POLICIES, WAITING
    from faro_ops.recommend.audit import audit as audit_of
    from faro_ops.recommend.records import (
        records_from_csv,
        records_from_journal,
        records_from_prometheus,
    )

    if plot is not None:
        shared.check_picture(Path(plot))
    load_plugins(plugin or [])
    shared.check_one_source(workload, prometheus, journal)
    if jobs is None and journal is None:
        raise ValueError(
            "--jobs FILE is missing: a table of jobs with their SLOs and service times"
        )
    if journal is not None:
        records = records_from_journal(journal, jobs)
    elif workload is not None:
        records = records_from_csv(workload, str(jobs))
    else:
        if not (query and replicas_query and latency):
            raise ValueError(
                "--prometheus needs --query, --replicas-query and --latency 0.99=PROMQL"
            )
        records = records_from_prometheus(
            str(prometheus),
            query,
            replicas_query,
            _levels(latency),
            str(jobs),
            hours=hours,
            label=label,
            token_path=prometheus_token,
        )
    serving_model = WAITING if dispatch == WAITING.dispatch else ServingModel(dispatch)
    result = audit_of(
        records,
        capacity,
        policies=policy or POLICIES,
        forecaster=forecaster,
        serving_model=serving_model,
        report=say,
    )
    if plot is not None:
        from faro_ops.recommend.figure import pictures

        title = "What the autoscalers did, and what others would do"
        shared.write_picture(Path(plot), lambda: pictures(result), title, text(result))
    print(json.dumps(result.to_dict()) if as_json else text(result))
    return 0 if result.policies else NOT_REPRODUCED


def _levels(latency: list[str]) -> dict[float, str]:
    """Mapping of latency quantile (NaN = mean) to PromQL query, from options such as 0.99=PROMQL."""
    levels = {}
    for one in latency:
        level, _, promql = one.partition("=")
        try:
            number = float("nan") if level == "mean" else float(level)
        except ValueError:
            number = -1.0
        if not (level == "mean" or 0 < number < 1) or not promql:
            raise ValueError(
                f"latency={one!r} must be QUANTILE=PROMQL, such as 0.99=PROMQL, or mean=PROMQL"
            )
        levels[number] = promql
    return levels


def text(result: Audit) -> str:
    """Text tables of the services, the policies, the effect of each policy on each service, and the cores by hour."""
    services = [
        {
            "job": one.job.name,
            "replica": one.calibration.kind if one.calibration else "-",
            "capacity (requests/s)": _interval(one.calibration.capacity_rps)
            if one.calibration
            else "-",
            "in 90 % interval": "-" if one.inside != one.inside else f"{100 * one.inside:.0f} %",
            "late minutes": "-"
            if one.late_minutes != one.late_minutes
            else f"{100 * one.late_minutes:.1f} %",
            "simulated": _percent(one.predicted_late_minutes),
            "late requests, simulated": _percent(one.violation_rate),
            "backcast": "refused" if one.refusal else "reproduced",
        }
        for one in result.services
    ]
    lines = [text_table(services)]
    lines += [f"{one.job.name}: no advice: {one.refusal}" for one in result.services if one.refusal]
    lines += [f"{one.job.name}: {one.note}" for one in result.services if one.note]
    if not result.policies:
        return "\n".join(lines)
    policies = [
        {
            "policy": name,
            "lost utility": _interval(of["lost_utility"]),
            "minus recorded": _interval(of["difference"]) if of["difference"].any() else "-",
            "": _verdict(of["difference"]),
            "late requests": _percent(of["slo_violation_rate"]),
            "cores": f"{of['cores'][1]:.1f}",
        }
        for name, of in result.policies.items()
    ]
    reproduced = len(result.reproduced)
    compared = list(result.by_service.items())[
        1:
    ]  # the first entry is for the recorded replicas themselves
    by_service = [
        {"job": one.job.name}
        | {
            policy: f"{_interval(of[:, n])} {_verdict(of[:, n])}".rstrip()
            for policy, of in compared
        }
        for n, one in enumerate(result.reproduced)
    ]
    lines += [
        "",
        f"{result.replayed}, {reproduced} of {len(services)} services on {result.capacity:g} cores, simulated, 90 % intervals",
        f"utility lost per minute, of at most {reproduced}; as recorded, it was {result.observed_lost():.3g}",
        text_table(policies),
        "",
        "utility lost per minute minus that of the recorded replicas, by service:",
        text_table(by_service),
    ]
    if len(result.used) < DAY_MINUTES:
        lines += [
            f"these are {len(result.used)} minutes of one day; other hours and days may differ"
        ]
    names = {"used_mean": "used, mean", "used_least": "used, least", "needed_most": "needed, most"}
    hours = [
        {
            names.get(key, key): value if isinstance(value, str) else f"{value:.1f}"
            for key, value in row.items()
        }
        for row in result.hours()
    ]
    most = (
        f"the SLOs of the reproduced services need up to {result.required.max():g} cores; by hour:"
    )
    return "\n".join([*lines, "", most, text_table(hours)])


def _verdict(difference: Any) -> str:
    low, _, high = difference
    return (
        "better"
        if high < 0
        else "worse"
        if low > 0
        else "no difference shown"
        if difference.any()
        else ""
    )


def _interval(interval: Any) -> str:
    return "{1:.3g} ({0:.3g} to {2:.3g})".format(*interval)


def _percent(interval: Any) -> str:
    low, middle, high = (100 * value for value in interval)
    return "-" if middle != middle else f"{middle:.1f} % ({low:.1f} to {high:.1f})"
