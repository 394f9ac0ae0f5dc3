"""The Grafana dashboard: capacity, replicas, latency, load, utility and reasons, by job."""

from __future__ import annotations

import json

BY_JOB = "max by (inference_job) ({})"
JOB = "{{inference_job}}"
# (title, unit, [(query, legend)])
PANELS = (
    (
        "Capacity and use",
        "short",
        [("max(faro_capacity_cores)", "capacity, cores"), ("max(faro_used_cores)", "used, cores")],
    ),
    (
        "Replicas",
        "short",
        [(BY_JOB.format("faro_running_replicas"), JOB), (BY_JOB.format("faro_desired_replicas"), f"{JOB}, desired")],
    ),
    (
        "Tail latency, observed and predicted",
        "s",
        [
            (BY_JOB.format("faro_tail_latency_seconds"), JOB),
            (BY_JOB.format("faro_predicted_tail_latency_seconds"), f"{JOB}, predicted"),
        ],
    ),
    (
        "Requests per second, observed and forecast",
        "reqps",
        [
            (BY_JOB.format("faro_arrivals_per_minute") + " / 60", JOB),
            (BY_JOB.format("faro_forecast_rps"), f"{JOB}, forecast"),
        ],
    ),
    ("Ongoing requests", "short", [(BY_JOB.format("faro_ongoing_requests"), JOB)]),
    ("Utility", "percentunit", [(BY_JOB.format("faro_utility"), JOB)]),
    ("Drop rate", "percentunit", [(BY_JOB.format("faro_drop_ratio"), JOB)]),
    ("Decisions by reason", "short", [("sum by (reason) (increase(faro_decisions_total[5m]))", "{{reason}}")]),
    ("Failures by reason", "short", [("sum by (reason) (increase(faro_failures_total[5m]))", "{{reason}}")]),
    (
        "Duration of a decision",
        "s",
        [("histogram_quantile(0.99, sum by (le) (rate(faro_decision_duration_seconds_bucket[5m])))", "p99")],
    ),
)
SOURCE = {"type": "prometheus", "uid": "${source}"}
DASHBOARD = {
    "uid": "faro",
    "title": "Faro",
    "tags": ["faro"],
    "schemaVersion": 39,
    "refresh": "15s",
    "time": {"from": "now-1h", "to": "now"},
    "templating": {"list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]},
}


def dashboard() -> str:
    """The dashboard as JSON; the user picks the data source in Grafana."""
    panels = [
        {
            "id": i + 1,
            "type": "timeseries",
            "title": title,
            "datasource": SOURCE,
            "gridPos": {"x": 12 * (i % 2), "y": 8 * (i // 2), "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + n), "datasource": SOURCE, "expr": query, "legendFormat": legend}
                for n, (query, legend) in enumerate(queries)
            ],
        }
        for i, (title, unit, queries) in enumerate(PANELS)
    ]
    return json.dumps(DASHBOARD | {"panels": panels}, indent=1)
