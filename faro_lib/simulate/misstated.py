"""Services that differ in shape from what is stated: their mean service times are right.

A `Misstated` changes the random numbers of a trial. The comparison of docs/learning.md, the arena,
and tables that know the truth all use it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from faro_lib.simulate.draws import Draws

LONG_STREAM = 7  # of random numbers: which requests are long


@dataclass(frozen=True, slots=True)
class LongRequests:
    """A `share` of the requests takes `times` as long as the others; the mean is kept."""

    share: float = 0.005
    times: float = 8.0

    def __call__(self, draws: Draws) -> Draws:
        rng = np.random.default_rng([draws.seed, LONG_STREAM])
        is_long = rng.random(len(draws.service_s)) < self.share
        mean = 1 - self.share + self.share * self.times
        factor = np.where(is_long, self.times, 1.0) / mean
        return replace(draws, service_s=draws.service_s * factor)


@dataclass(frozen=True, slots=True)
class Spells:
    """Spells of `length_s` seconds in which service is `slower` times slower; the mean is kept.

    One spell begins every `every_s` seconds. A request has the speed of its arrival.
    """

    length_s: float = 20.0
    every_s: float = 60.0
    slower: float = 2.0

    def __call__(self, draws: Draws) -> Draws:
        in_spell = draws.arrival_s % self.every_s >= self.every_s - self.length_s
        share = self.length_s / self.every_s
        mean = 1 - share + share * self.slower
        factor = np.where(in_spell, self.slower, 1.0) / mean
        return replace(draws, service_s=draws.service_s * factor)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Each request spends `seconds` outside of the replicas, which more replicas do not change."""

    seconds: float = 0.1

    def __call__(self, draws: Draws) -> Draws:
        return replace(draws, elsewhere_s=self.seconds)


Misstated = Callable[[Draws], Draws]
