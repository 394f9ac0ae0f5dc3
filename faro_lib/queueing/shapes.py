"""Shapes: how the latencies of a service may differ from its table, besides by a factor.

A factor on all service times (`service_factor`) makes a service slower at any load. Other errors
change how latency grows with the load, and a factor that explains them at one load is wrong at the
next. A `Shape` is one such error, as a change of what the table predicts. With T the table's
latency quantile at rate r and n replicas, I that of an idle service, and f the factor, it predicts

    f (I + wait (T(f s r, m) s - I) + e I),    s = exp(STEP slower)

where m is n, and r is the rate of these m replicas. If each request can use one replica only, m is
1. Each number of `elsewhere` is e in an equal share of the minutes: several numbers mean that few
requests take much longer, and that some minutes have more of them than others. The mean service
time of all shapes is f times as long as stated, so busy seconds tell shapes from factors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from faro_lib.queueing.latency_models import LatencyModel
from faro_lib.queueing.service_factor import FACTORS, STEP
from faro_lib.queueing.shared_factor import idle_latency_s
from faro_lib.workload import Job


@dataclass(frozen=True, slots=True)
class Shape:
    """A change of a table's latencies, as the module's equation has it."""

    name: str
    wait: float = 1.0
    elsewhere: tuple[float, ...] = (0.0,)
    slower: int = 0  # steps of STEP
    one_replica: bool = False


SHAPES = (
    Shape("as stated"),
    Shape("requests reach replicas at random", one_replica=True),
    Shape("longer queues", wait=2.0),
    Shape("much longer queues", wait=4.0),
    Shape("time spent elsewhere", elsewhere=(0.25,)),
    Shape("much time spent elsewhere", elsewhere=(0.5,)),
    Shape("few requests take much longer", elsewhere=(0.0, 1.0, 3.0, 6.0)),
    Shape("spells a quarter slower", slower=5),
    Shape("spells half as slow again", slower=8),
    Shape("spells three quarters slower", slower=11),
    Shape("spells at half speed", slower=14),
)
STATED = 0  # index of the table's own shape, before all others
ACTING = [n for n, shape in enumerate(SHAPES) if shape.slower or shape.one_replica]
MOST_SLOWER = max(shape.slower for shape in SHAPES)


def predicted_s(
    model: LatencyModel, jobs: Sequence[Job], rate_rps: np.ndarray, replicas: np.ndarray
) -> Iterator[np.ndarray]:
    """Equally likely latency quantiles at each factor, (jobs, factors, minutes), of each shape.

    rate_rps, replicas : (jobs,)
    """
    rate_rps, replicas = rate_rps[:, None], replicas[:, None]
    slower = np.append(FACTORS, FACTORS[-1] * np.exp(STEP * np.arange(1, MOST_SLOWER + 1)))
    all_replicas_s = model.minutes_s(jobs, rate_rps * slower, replicas) * slower[:, None]
    share_rps = rate_rps / np.maximum(replicas, 1)
    one_replica_s = model.minutes_s(jobs, share_rps * FACTORS, np.ones_like(replicas))
    one_replica_s = one_replica_s * FACTORS[:, None]
    idle_s = idle_latency_s(model, jobs)[:, None, None] * FACTORS[:, None]
    for shape in SHAPES:
        first, end = shape.slower, shape.slower + len(FACTORS)
        table_s = one_replica_s if shape.one_replica else all_replicas_s[:, first:end]
        waits_s = table_s - idle_s
        longer_s = np.where(waits_s > 0, shape.wait * waits_s, waits_s)
        yield np.concatenate([idle_s * (1 + e) + longer_s for e in shape.elsewhere], axis=2)


def acting(weight: np.ndarray) -> np.ndarray:
    """Posterior (jobs, 2, factors) of the latencies with which plans are made.

    The first member has the latencies of all replicas at a factor, the second those of one replica
    and its share of the load. Slow spells act as a larger factor. The other shapes have the factor
    of their service times, because the replicas that are worth their cost hardly depend on them.

    weight : (jobs, shapes, factors).
    """
    members = np.zeros((len(weight), 2, len(FACTORS)))
    for n, shape in enumerate(SHAPES):
        of_shape, member = weight[:, n], members[:, int(shape.one_replica)]
        kept = len(FACTORS) - shape.slower
        member[:, shape.slower :] += of_shape[:, :kept]
        member[:, -1] += of_shape[:, kept:].sum(axis=1)
    return members


def changed(weight: np.ndarray, prior: np.ndarray, change: float) -> np.ndarray:
    """The posterior (jobs, shapes, factors) after a minute in which any shape may have begun.

    With probability `change`, the shape is drawn from `prior` (shapes,).
    """
    any_shape = prior[:, None] * weight.sum(axis=1, keepdims=True)
    return (1 - change) * weight + change * any_shape
