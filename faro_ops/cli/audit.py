"""`faro audit`: simulate what autoscalers did, and what other policies would have done instead."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from faro_lib.workload.jobs import DAY_MINUTES
from faro_ops.cli import shared
from faro_ops.cli.shared import cores, option, text_table
from faro_ops.log import say

if TYPE_CHECKING:
    from faro_ops.advise.audit.audit import Audit

NOT_REPRODUCED = 3  # exit status if the simulator reproduces the records of no service


def audit(
    workload: Annotated[
        str | None,
        option(
            "Table: job, requests, replicas, latency_p99_s (or other latencies), time or minute; "
            "or a log with a row for each request: time, job, latency_s."
        ),
    ] = None,
    replicas_file: Annotated[
        str | None, option("With a log: time, job, replicas, a row for each change.")
    ] = None,
    prometheus: shared.PrometheusAddress = None,
    prometheus_token: shared.PrometheusToken = None,
    query: shared.ArrivalsQuery = None,
    replicas_query: Annotated[str | None, option("PromQL for the replicas that serve.")] = None,
    latency: Annotated[
        list[str] | None,
        option("0.99=PROMQL or mean=PROMQL for latencies in seconds over one minute; repeatable."),
    ] = None,
    label: shared.JobLabel = None,
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
        option(
            "Policy to compare; repeatable.",
            default="FairShare, Static (with earlier days), HPA, Faro-Sum",
        ),
    ] = None,
    forecaster: Annotated[str | None, option("Forecaster.", default="auto")] = None,
    dispatch: Annotated[
        str, option("least-outstanding, random, or round-robin (as in the paper).")
    ] = "least-outstanding",
    at_random: shared.AtRandom = False,
    plugin: shared.Plugins = None,
    plot: Annotated[str | None, option("Draw the pictures into this .png or .html file.")] = None,
    as_json: Annotated[bool, option("Print one JSON object instead of tables.", "--json")] = False,
) -> int:
    """Simulate recorded load as it was served, and with other policies.

    Give one of --workload, --prometheus and --journal. Policies are compared on the services whose
    recorded minutes the simulator reproduces. For any other service, the output says why it is left
    out.

    Exit status: 0 success; 2 invalid input; 3 no service was reproduced; 130 interrupted.
    """
    from faro_lib.registry import load_plugins
    from faro_lib.simulate import ServingModel
    from faro_lib.workload.log_traces import tell_counts
    from faro_lib.workload.request_log import is_request_log
    from faro_ops.advise.audit.audit import WAITING
    from faro_ops.advise.audit.audit import audit as audit_of
    from faro_ops.advise.sources.serving_history import (
        serving_from_csv,
        serving_from_journal,
        serving_from_log,
        serving_from_prometheus,
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
        serving = serving_from_journal(journal, jobs)
    elif workload is not None and is_request_log(workload):
        serving = serving_from_log(workload, replicas_file, str(jobs), say, bursts=not at_random)
    elif workload is not None:
        serving = serving_from_csv(workload, str(jobs))
    else:
        if not (query and replicas_query and latency):
            raise ValueError(
                "--prometheus needs --query, --replicas-query and --latency 0.99=PROMQL"
            )
        serving = serving_from_prometheus(
            str(prometheus),
            query,
            replicas_query,
            _levels(latency),
            str(jobs),
            hours=hours,
            label=label,
            token_path=prometheus_token,
        )
    if at_random:
        serving = replace(serving, history=serving.history.at_random())
    serving_model = WAITING if dispatch == WAITING.dispatch else ServingModel(dispatch)
    result = audit_of(
        serving,
        capacity,
        policies=policy or None,
        forecaster=forecaster,
        serving_model=serving_model,
        report=say,
    )
    if not (at_random or serving.history.traces.arrival_s):
        tell_counts(serving.jobs, say)
    if plot is not None:
        from faro_ops.advise.recommend.figure import pictures

        title = "What the autoscalers did, and what others would do"
        shared.write_picture(Path(plot), lambda: pictures(result), title, text(result))
    print(json.dumps(result.to_dict()) if as_json else text(result))
    return 0 if result.policies else NOT_REPRODUCED


def _levels(latency: list[str]) -> dict[float, str]:
    """Latency quantile (NaN = mean) -> PromQL query, from options such as 0.99=PROMQL."""
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
    """Text tables of the services and, if policies were compared, of policies and cores by hour."""
    lines = _of_services(result)
    if result.policies:
        lines += ["", *_of_policies(result), "", *_of_cores(result)]
    return "\n".join(lines)


def _of_services(result: Audit) -> list[str]:
    """How well each service was reproduced, and why some were not."""
    rows = []
    for one in result.services:
        calibration = one.calibration
        capacity_rps = _interval(calibration.capacity_rps) if calibration else "-"
        row = {
            "job": one.job.name,
            "replica": calibration.kind if calibration else "-",
            "capacity (requests/s)": capacity_rps,
            "service_time_s": f"{calibration.service.service_time_s:.3g}" if calibration else "-",
            "service_time_error": f"{calibration.service_time_error:.3f}" if calibration else "-",
            "in 90 % interval": _share(one.inside, ".0f"),
            "late minutes": _share(one.late_minutes, ".1f"),
            "simulated": _percent(one.predicted_late_minutes),
            "late requests, simulated": _percent(one.violation_rate),
            "backcast": "refused" if one.refusal else "reproduced",
        }
        rows.append(row)
    lines = [text_table(rows)]
    lines += [f"{one.job.name}: no advice: {one.refusal}" for one in result.services if one.refusal]
    lines += [f"{one.job.name}: {one.note}" for one in result.services if one.note]
    return lines


def _of_policies(result: Audit) -> list[str]:
    """What each policy loses, and how much more than the recorded replicas, by service."""
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
    _, *compared = result.by_service.items()  # the first entry is for the recorded replicas
    by_service = []
    for n, one in enumerate(result.reproduced):
        row = {"job": one.job.name}
        for policy, difference in compared:  # (3, services)
            of_service = difference[:, n]
            row[policy] = f"{_interval(of_service)} {_verdict(of_service)}".rstrip()
        by_service.append(row)
    reproduced = len(result.reproduced)
    lines = [
        f"{result.simulated}, {reproduced} of {len(result.services)} services "
        f"on {result.capacity:g} cores, simulated, 90 % intervals",
        f"utility lost per minute, of at most {reproduced}; "
        f"as recorded, it was {result.observed_lost():.3g}",
        text_table(policies),
        "",
        "utility lost per minute minus that of the recorded replicas, by service:",
        text_table(by_service),
    ]
    if len(result.used) < DAY_MINUTES:
        lines.append(
            f"these are {len(result.used)} minutes of one day; other hours and days may differ"
        )
    return lines


def _of_cores(result: Audit) -> list[str]:
    """The cores that the reproduced services used and needed in each hour."""
    names = {"used_mean": "used, mean", "used_least": "used, least", "needed_most": "needed, most"}
    hours = []
    for row in result.hours():
        cells = {names.get(key, key): value for key, value in row.items()}
        hours.append(
            {
                name: value if isinstance(value, str) else f"{value:.1f}"
                for name, value in cells.items()
            }
        )
    most = result.required.max()
    return [
        f"the SLOs of the reproduced services need up to {most:g} cores; by hour:",
        text_table(hours),
    ]


def _verdict(difference: Any) -> str:
    """What the interval (low, middle, high) of a difference in lost utility says; "" if it is 0."""
    low, _, high = difference
    if high < 0:
        return "better"
    if low > 0:
        return "worse"
    return "no difference shown" if difference.any() else ""


def _interval(interval: Any) -> str:
    low, middle, high = interval
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _share(value: float, spec: str) -> str:
    return "-" if math.isnan(value) else f"{100 * value:{spec}} %"


def _percent(interval: Any) -> str:
    low, middle, high = (100 * value for value in interval)
    return "-" if math.isnan(middle) else f"{middle:.1f} % ({low:.1f} to {high:.1f})"
