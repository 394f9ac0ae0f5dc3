"""The lengths of a log of requests, as a `continuous` replica describes them."""

from dataclasses import replace

import numpy as np

from faro_lib.workload.log_lengths import length_fields
from faro_lib.workload.replicas import Continuous, Replica


def logged(replica: Continuous, tokens: np.ndarray) -> Continuous:
    """The replica with the lengths of a log's prompts and outputs, `tokens` (2, requests)."""
    return replace(replica, **length_fields(tokens, lambda number: number.round(1)))


def lognormal(replica: Replica, tokens: np.ndarray) -> Continuous:
    """The replica with lognormal lengths of the mean and variance of `tokens` (2, requests)."""
    assert isinstance(replica, Continuous)
    mean, std = tokens.mean(axis=1), tokens.std(axis=1)
    cv = (std / mean).tolist()
    return replace(
        replica,
        prompt_tokens=float(mean[0]),
        prompt_cv=cv[0],
        prompt_quantiles=(),
        output_tokens=float(mean[1]),
        output_cv=cv[1],
        output_quantiles=(),
    )
