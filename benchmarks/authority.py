"""How soon earned authority grows, and how soon a slower service loses it.

    python benchmarks/authority.py

It prints the tables of docs/adopt.md. Minutes are drawn from the measured latency table of the
paper's ResNet34 at a constant rate on four replicas.
"""

import numpy as np

from faro_lib.simulate.measure import measure
from faro_lib.workload import Job
from faro_ops.operate.limits.authority import (
    ADVISE,
    FULL,
    LEVELS,
    Authority,
    expected_loss,
    judged,
    weighed,
)
from studies.wording import markdown_table

JOB = Job("a")
REPLICAS = 4
SERVICES = 200
MINUTES = 1440


def losses(model, rate_rps, slower, rng):
    """Losses (minutes, services) if the service time is `slower` times as long as modelled."""
    tail_s, _ = model.minutes(JOB, rate_rps * slower, REPLICAS)
    seen_s = slower * rng.choice(tail_s, (MINUTES, SERVICES))
    return 1 - np.minimum(1, JOB.slo_s / np.maximum(seen_s, JOB.slo_s))


def levels(model, rate_rps, slower, start, good_minutes=0):
    """Authority level (minutes, services), after `good_minutes` that agreed with the model."""
    rng = np.random.default_rng(0)
    replicas = np.array([REPLICAS])
    counted = np.ones(SERVICES, bool)
    expected, doubled = (
        np.repeat(expected_loss((JOB,), np.array([rate_rps]), replicas, model, factor), SERVICES)
        for factor in (1, 2)
    )
    authority = Authority.none(SERVICES, start)
    for lost in losses(model, rate_rps, 1.0, rng)[:good_minutes]:
        authority = judged(weighed(authority, lost, expected, doubled, counted, counted))
    path = []
    for lost in losses(model, rate_rps, slower, rng):
        authority = judged(weighed(authority, lost, expected, doubled, counted, counted))
        path.append(authority.level)
    return np.array(path)


def minutes_until(reached):
    """Text "median (90 % of services)": the first minute of `reached`, bool (minutes, services)."""
    first = np.where(reached.any(axis=0), reached.argmax(axis=0) + 1, np.inf)
    return "{:g} ({:g})".format(*np.quantile(first, (0.5, 0.9), method="higher"))


def main():
    model = measure((JOB,))
    saturated = REPLICAS / JOB.service_time_s
    rows = []
    for utilisation in (0.3, 0.5, 0.6, 0.7):
        rate = utilisation * saturated
        path = levels(model, rate, 1.0, ADVISE)
        p = float(expected_loss((JOB,), np.array([rate]), np.array([REPLICAS]), model)[0])
        reached = [minutes_until(path >= level) for level in range(1, len(LEVELS))]
        rows.append([utilisation, round(p, 3), *reached])
    heads = ["utilisation", "loss expected", *(f"minutes to {level}" for level in LEVELS[1:])]
    print(markdown_table(heads, rows), end="\n\n")
    rows = []
    for utilisation in (0.5, 0.6, 0.7):
        for slower in (1.2, 1.5, 2.0, 3.0):
            rate = utilisation * saturated
            lost = losses(model, rate, slower, np.random.default_rng(1)).mean()
            at_once = minutes_until(levels(model, rate, slower, FULL) < FULL)
            later = minutes_until(levels(model, rate, slower, FULL, MINUTES) < FULL)
            rows.append([utilisation, slower, round(float(lost), 2), at_once, later])
    heads = ["utilisation", "slower by", "loss", "minutes to rollback", "after a good day"]
    print(markdown_table(heads, rows))


if __name__ == "__main__":
    main()
