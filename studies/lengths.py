"""Lengths of prompts and outputs as in a log of requests, instead of lognormal ones.

Real lengths are bounded by the context of the model, and have peaks where many requests share a
template, so a lognormal distribution with the same mean and variance has too many long prompts.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from faro_lib.workload.replicas import Continuous

Points = tuple[tuple[float, float], ...]
# Shares of the requests at which the tokens are kept: densely at the end, which decides a p99.
SHARES = (*np.round(np.arange(0.0, 1.0, 0.02), 2).tolist(), 0.99, 0.995, 0.999, 1.0)
MOST_TOKENS = 1e6


@dataclass(frozen=True, slots=True)
class Logged(Continuous):
    """A `continuous` replica with the quantiles of a log's lengths.

    A point (share, tokens) says which share of the requests has at most so many tokens. Tokens are
    linear in the share between points, and scaled so that their mean is that of the replica, which
    may drift. Prompts and outputs are independent. ValueError for points that do not rise from
    share 0 to 1.
    """

    prompt_points: Points = ((0.0, 1.0), (1.0, 1.0))
    output_points: Points = ((0.0, 1.0), (1.0, 1.0))

    def __post_init__(self) -> None:
        Continuous.__post_init__(self)
        self._check_points("prompt_points")
        self._check_points("output_points")

    def _check_points(self, field: str) -> None:
        share, tokens = np.reshape(getattr(self, field), (-1, 2)).T
        rises = (np.diff(share) > 0).all() and list(share[[0, -1]]) == [0.0, 1.0]
        grows = (np.diff(tokens, prepend=1.0, append=MOST_TOKENS) >= 0).all()
        accepted = "pairs (share, tokens) that rise from share 0 to 1, with tokens from 1 to 1e6"
        self._check(field, bool(rises and grows), accepted)

    def lengths(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(prompt tokens, output tokens) of n requests, whole numbers of shape (2, n)."""
        prompts = _drawn(self.prompt_points, self.prompt_tokens, rng.random(n))
        outputs = _drawn(self.output_points, self.output_tokens, rng.random(n))
        return np.maximum(np.rint([prompts, outputs]), 1.0)


def _drawn(points: Points, mean: float, uniform: np.ndarray) -> np.ndarray:
    """Tokens with this mean at uniform shares, (requests,), by inversion."""
    share, tokens = np.transpose(points)
    return np.interp(uniform, share, tokens) * mean / np.trapezoid(tokens, share)


def points_of(tokens: np.ndarray) -> Points:
    """The tokens (requests,) at SHARES.

    >>> points_of(np.arange(1.0, 102.0))[-3:]
    ((0.995, 100.5), (0.999, 100.9), (1.0, 101.0))
    """
    return tuple(zip(SHARES, np.quantile(tokens, SHARES).round(1).tolist()))


def logged(replica: Continuous, tokens: np.ndarray) -> Logged:
    """The replica with the lengths of a log's prompts and outputs, `tokens` (2, requests)."""
    of_prompts, of_outputs = map(points_of, tokens)
    mean = tokens.mean(axis=1).round(1).tolist()
    own: dict[str, Any] = {one.name: getattr(replica, one.name) for one in fields(replica)}
    own |= {"prompt_tokens": mean[0], "prompt_cv": 0.0, "prompt_points": of_prompts}
    own |= {"output_tokens": mean[1], "output_cv": 0.0, "output_points": of_outputs}
    return Logged(**own)
