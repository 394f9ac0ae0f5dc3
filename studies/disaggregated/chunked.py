"""One pool whose steps compute prompts in chunks, so that long prompts delay others less.

It is the rival of separate pools (`studies.disaggregated.world`), and what engines do today
(Agrawal et al., Sarathi-Serve, OSDI'24). The step is that of the kind `continuous`: n sequences and
c new prompt tokens take decode_s(n) + prefill_s(a + c) - prefill_s(a). Here, a is the number of
tokens of the first of these prompts that earlier steps have computed. The chunks of a prompt thus
take together as long as the whole prompt, and each shares its step with the sequences that decode.
"""

import numpy as np
from numba import njit

from faro_lib.simulate.replicas import SHORTEST_S
from faro_lib.workload.replicas import Continuous
from studies.disaggregated.world import Requests


def chunked_latency_s(
    replica: Continuous, requests: Requests, replicas: int, chunk: int
) -> np.ndarray:
    """Latency of every request in s (requests,), as `slo_on: both` defines it.

    A step computes at most `chunk` prompt tokens; `max_tokens` of the replica is not used. Prompts
    are computed first in, first out. A request goes to the replica with the fewest requests.
    """
    knees = np.array([(0.0, replica.gamma_s), *replica.gamma_knees])
    durations_s = np.array(replica.durations_s)
    first_s, end_s = _times(*requests, replicas, durations_s, knees, chunk)
    later = requests.output_tokens - 1
    per_token_s = np.where(later > 0, (end_s - first_s) / np.maximum(later, 1), SHORTEST_S)
    waited_s = first_s - requests.arrival_s
    return np.maximum(waited_s, replica.per_token_weight * per_token_s)


@njit(cache=True)
def _times(arrival_s, prompt_tokens, output_tokens, replicas, durations_s, knees, chunk):
    """Times of the first and of the last token of every request, both (requests,)."""
    n = len(arrival_s)
    first_s, end_s = np.zeros(n), np.zeros(n)
    computed, given = np.zeros(n), np.zeros(n)  # prompt tokens and output tokens so far
    line = np.zeros((replicas, n), np.int64)  # requests by arrival; the first ones are in service
    inside, serving = np.zeros(replicas, np.int64), np.zeros(replicas, np.int64)
    step_end_s = np.full(replicas, np.inf)  # inf: without requests
    arriving, turn = 0, 0
    while True:
        slot = np.argmin(step_end_s)
        now = step_end_s[slot]
        arrives = arrival_s[arriving] if arriving < n else np.inf
        if arrives == np.inf and now == np.inf:
            return first_s, end_s
        if arrives <= now:
            now, slot = arrives, turn
            for k in range(replicas):  # among equal ones, the next in turn
                other = (turn + k) % replicas
                if inside[other] < inside[slot]:
                    slot = other
            turn = (slot + 1) % replicas
            line[slot, inside[slot]] = arriving
            inside[slot] += 1
            arriving += 1
            if step_end_s[slot] < np.inf:
                continue  # it is admitted when the step ends
        else:
            left = 0
            for k in range(inside[slot]):
                request = line[slot, k]
                if k < serving[slot] and computed[request] == prompt_tokens[request]:
                    given[request] += 1
                    if given[request] == 1:
                        first_s[request] = now
                    if given[request] == output_tokens[request]:
                        end_s[request] = now
                        left += 1
                        continue
                line[slot, k - left] = request
            inside[slot] -= left
            serving[slot] -= left
        step_s, serving[slot] = _step(
            line[slot],
            inside[slot],
            serving[slot],
            computed,
            prompt_tokens,
            durations_s,
            knees,
            chunk,
        )
        step_end_s[slot] = now + step_s


@njit(cache=True)
def _step(line, inside, serving, computed, prompt_tokens, durations_s, knees, chunk):
    """The duration of a replica's next step and the sequences in it; admits and computes prompts.

    The duration is inf without requests.
    """
    if inside == 0:
        return np.inf, 0
    before, tokens = -1.0, 0.0
    for k in range(min(inside, len(durations_s))):
        request = line[k]
        missing = prompt_tokens[request] - computed[request]
        if missing == 0:
            continue
        if tokens == chunk:
            break
        if before < 0:
            before = computed[request]
        taken = min(missing, chunk - tokens)
        computed[request] += taken
        tokens += taken
        serving = max(serving, k + 1)
    step_s = durations_s[serving - 1]
    if tokens > 0:
        for knee in range(len(knees)):
            at, slope_s = knees[knee]
            step_s += slope_s * (max(before + tokens - at, 0.0) - max(before - at, 0.0))
    return step_s, serving
