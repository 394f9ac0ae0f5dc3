"""Read recorded load: tables, request logs, Prometheus, journals."""
