"""How soon earned authority grows, and how soon a slower service loses it: the tables of
docs/adopt.md.

    python benchmarks/authority.py

Minutes are drawn from the measured latency table of the paper's ResNet34 at a constant rate on four
replicas.
"""

import numpy as np

from faro_lib.simulate.measure import measure
from faro_lib.workload import Job
from faro_ops.policies.authority import (
    ADVISE,
    FULL,
    LEVELS,
    Authority,
    expected_loss,
    judged,
    weighed,
)

JOB, REPLICAS, SERVICES, MINUTES = Job("a"), 4, 200, 1440


def losses(model, rate_rps, slower, rng):
    """Losses (minutes, services) of a service whose service time is `slower` times as long as
    modelled.
    """
    tail_s, _ = model.minutes(JOB, rate_rps * slower, REPLICAS)
    return 1 - np.minimum(
        1, JOB.slo_s / np.maximum(slower * rng.choice(tail_s, (MINUTES, SERVICES)), JOB.slo_s)
    )


def levels(model, rate_rps, slower, start, good_minutes=0):
    """Authority level (minutes, services) in each minute, after `good_minutes` that agreed with the
    model.
    """
    rng, replicas, counted = np.random.default_rng(0), np.array([REPLICAS]), np.ones(SERVICES, bool)
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
    """Text "median (90 % of services)": the first minute at which `reached`, bool (minutes,
    services), holds.
    """
    first = np.where(reached.any(axis=0), reached.argmax(axis=0) + 1, np.inf)
    return "{:g} ({:g})".format(*np.quantile(first, (0.5, 0.9), method="higher"))


def main():
    model = measure((JOB,))
    saturated = REPLICAS / JOB.service_time_s
    print("utilisation | loss expected | minutes to", ", ".join(LEVELS[1:]))
    for utilisation in (0.3, 0.5, 0.6, 0.7):
        rate = utilisation * saturated
        path = levels(model, rate, 1.0, ADVISE)
        p = float(expected_loss((JOB,), np.array([rate]), np.array([REPLICAS]), model)[0])
        print(
            utilisation,
            "|",
            round(p, 3),
            "|",
            *(minutes_until(path >= level) for level in range(1, len(LEVELS))),
            sep=" ",
        )
    print("utilisation | slower by | loss | minutes to rollback, from the start | after a good day")
    for utilisation in (0.5, 0.6, 0.7):
        for slower in (1.2, 1.5, 2.0, 3.0):
            rate = utilisation * saturated
            lost = losses(model, rate, slower, np.random.default_rng(1)).mean()
            both = (
                minutes_until(levels(model, rate, slower, FULL, good) < FULL) for good in (0, 1440)
            )
            print(utilisation, "|", slower, "|", round(float(lost), 2), "|", *both, sep=" ")


if __name__ == "__main__":
    main()
