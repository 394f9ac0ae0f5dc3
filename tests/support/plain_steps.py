"""Replicas that generate tokens, simulated by the definition: one step after the other, with lists.

No code of `faro_lib.simulate` takes part.
"""

from __future__ import annotations

import numpy as np

from faro_lib.workload.replicas import Continuous, Disaggregated
from studies.disaggregated.world import Requests

# Fields of small replicas: those of `Continuous`, knees in its times, and those of `Disaggregated`.
STEPS = {
    "alpha_s": 0.03,
    "beta_s": 0.001,
    "gamma_s": 0.0001,
    "max_sequences": 3,
    "output_tokens": 8,
    "prompt_tokens": 200,
    "max_tokens": 500,
    "slo_on": "both",
    "per_token_weight": 20.0,
}
KNEES = {
    "beta_knees": ((2.0, 0.004),),
    "gamma_knees": ((150.0, 0.0002), (400.0, -0.0001)),
}
APART = {
    "output_cv": 0.5,
    "prompt_cv": 0.5,
    "link_gbps": 8.0,
    "kv_bytes_per_token": 300_000,
    "prefill_max_tokens": 400,
}


def random_requests(seed: int, n: int = 60, rate_rps: float = 12.0) -> Requests:
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / rate_rps, n))
    prompts = rng.integers(1, 600, n).astype(float)
    return Requests(arrival_s, prompts, rng.integers(1, 15, n).astype(float))


class Plain:
    """A pool of replicas, simulated by the definition: one step after the other, with lists.

    `step` takes the lists of requests in service and of those that wait, and gives the seconds of
    the next step, in which the requests of both lists that it returns are served and get a token.
    """

    def __init__(self, requests: Requests, replicas: int, changes=(), permutation=None):
        """`changes` are (time, whether a replica comes or goes), `permutation` orders replicas."""
        self.requests = requests
        self.changes = list(changes)
        self.permutation = permutation or np.arange
        self.active = list(range(replicas))
        self.order = [self.active[k] for k in self.permutation(replicas)]
        self.prompt_left = list(requests.prompt_tokens)
        self.tokens_left = list(requests.output_tokens)
        self.token_s: list[list[float]] = [[] for _ in requests.arrival_s]
        self.inside: list[list[int]] = [[] for _ in range(replicas)]
        self.served: list[list[int]] = [[] for _ in range(replicas)]
        self.ends_s = [np.inf] * replicas
        self.turn = 0

    def run(self, begin) -> list[list[float]]:
        arrivals = list(enumerate(self.requests.arrival_s))
        while arrivals or min(self.ends_s) < np.inf:
            now = min(self.ends_s)
            if self.changes and self.changes[0][0] < min(now, arrivals[0][1] if arrivals else now):
                self._change(*self.changes.pop(0))
                continue
            if arrivals and arrivals[0][1] <= now:
                request, now = arrivals.pop(0)
                order = self.order[self.turn :] + self.order[: self.turn]
                where = min(order, key=lambda slot: len(self.inside[slot]))
                self.turn = (self.order.index(where) + 1) % len(self.order)
                self.inside[where].append(request)
                if self.ends_s[where] < np.inf:
                    continue
            else:
                where = self.ends_s.index(now)
                for request in self.served[where]:
                    if self.prompt_left[request] == 0:
                        self.token_s[request].append(now)
                        self.tokens_left[request] -= 1
                    if self.tokens_left[request] == 0:
                        self.inside[where].remove(request)
                self.served[where] = [r for r in self.served[where] if r in self.inside[where]]
            if self.inside[where]:
                seconds = begin(self.inside[where], self.served[where])
                self.ends_s[where] = now + seconds
            else:
                self.ends_s[where] = np.inf
        return self.token_s

    def _change(self, now_s: float, comes: bool) -> None:
        """A new replica comes, or the newest one goes, which still serves what it holds."""
        if comes:
            self.active.append(len(self.inside))
            self.inside.append([])
            self.served.append([])
            self.ends_s.append(np.inf)
        else:
            self.active.pop()
        self.order = [self.active[k] for k in self.permutation(len(self.active))]
        self.turn = 0


def whole_prompts(pool: Plain, replica: Continuous, max_tokens: float):
    """Steps that admit whole prompts, as long as they have at most `max_tokens` tokens."""

    def begin(inside, served):
        tokens = 0.0
        for request in inside[len(served) :]:
            prompt = pool.requests.prompt_tokens[request]
            full = len(served) == replica.max_sequences
            if full or (served and tokens + prompt > max_tokens):
                break
            served.append(request)
            pool.prompt_left[request] = 0
            tokens += prompt
        return replica.decode_s(len(served)) + replica.prefill_s(tokens)

    return begin


def prompts_in_chunks(pool: Plain, replica: Continuous, chunk: int):
    """Steps that compute the next `chunk` prompt tokens, first in first out."""

    def begin(inside, served):
        room, before = float(chunk), None
        for request in inside[: replica.max_sequences]:
            left = pool.prompt_left[request]
            if not left or not room:
                continue
            if before is None:
                before = pool.requests.prompt_tokens[request] - left
            taken = min(left, room)
            room -= taken
            pool.prompt_left[request] -= taken
            if request not in served:
                served.append(request)
        seconds = replica.decode_s(len(served))
        if before is not None:
            seconds += replica.prefill_s(before + chunk - room) - replica.prefill_s(before)
        return seconds

    return begin


def latency_of(
    requests: Requests, tokens_s: list[list[float]], weight: float, slo_on: str = "both"
) -> np.ndarray:
    """The latency that the SLO is on; "both" means the larger one, the time per token weighted."""
    rows = []
    for arrival_s, times in zip(requests.arrival_s, tokens_s):
        waited_s = times[0] - arrival_s
        per_token_s = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1e-9
        limited = {
            "first_token": waited_s,
            "per_token": per_token_s,
            "end_to_end": times[-1] - arrival_s,
            "both": max(waited_s, weight * per_token_s),
        }
        rows.append(limited[slo_on])
    return np.array(rows)


def plainly_apart(
    kind: Disaggregated, requests: Requests, prefill: int, decode: int
) -> list[list[float]]:
    """The times of the tokens of every request on so many prefill and decode replicas."""
    first = Plain(requests._replace(output_tokens=np.ones(len(requests.arrival_s))), prefill)
    tokens_s = first.run(whole_prompts(first, kind, kind.prefill_max_tokens))
    first_s = np.array([times[0] for times in tokens_s])
    ready_s = first_s + requests.prompt_tokens * kind.kv_bytes_per_token * 8e-9 / kind.link_gbps
    order = [r for r in np.argsort(ready_s, kind="stable") if requests.output_tokens[r] > 1]
    later = Requests(
        ready_s[order],
        np.zeros(len(order)),
        np.array([requests.output_tokens[r] - 1 for r in order]),
    )
    second = Plain(later, decode)
    for request, times in zip(order, second.run(whole_prompts(second, kind, np.inf))):
        tokens_s[request] += times
    return tokens_s
