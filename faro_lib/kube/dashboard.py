"""The Grafana dashboard: capacity, replicas, latency, load, utility and reasons."""

from __future__ import annotations

import json


def by_job(metric: str, suffix: str = "") -> tuple[str, str]:
    """The query and the legend of a metric that each job has."""
    return f"max by (inference_job) ({metric})", "{{inference_job}}" + suffix


# (title, unit, [(query, legend)])
DECISION_P99 = "histogram_quantile(0.99, sum by (le) (rate(faro_decision_duration_seconds_bucket[5m])))"
LATENCY, PREDICTED = "faro_tail_latency_seconds", "faro_predicted_tail_latency_seconds"
PANELS = (
    ("Capacity", "short", [("max(faro_capacity_cores)", "capacity, cores"), ("max(faro_used_cores)", "used, cores")]),
    ("Replicas", "short", [by_job("faro_running_replicas"), by_job("faro_desired_replicas", ", desired")]),
    ("Tail latency, observed and predicted", "s", [by_job(LATENCY), by_job(PREDICTED, ", predicted")]),
    ("Load", "reqps", [by_job("faro_arrivals_per_minute / 60"), by_job("faro_forecast_rps", ", forecast")]),
    ("Ongoing requests", "short", [by_job("faro_ongoing_requests")]),
    ("Utility", "percentunit", [by_job("faro_utility")]),
    ("Drop rate", "percentunit", [by_job("faro_drop_ratio")]),
    ("Decisions by reason", "short", [("sum by (reason) (increase(faro_decisions_total[5m]))", "{{reason}}")]),
    ("Failures by reason", "short", [("sum by (reason) (increase(faro_failures_total[5m]))", "{{reason}}")]),
    ("Duration of a decision", "s", [(DECISION_P99, "p99")]),
)
SOURCE = {"type": "prometheus", "uid": "${source}"}
SOURCES = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


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
    head = {"uid": "faro", "title": "Faro", "tags": ["faro"], "schemaVersion": 39, "refresh": "15s"}
    shown = {"time": {"from": "now-1h", "to": "now"}, "templating": {"list": [SOURCES]}, "panels": panels}
    return json.dumps(head | shown, indent=1)
