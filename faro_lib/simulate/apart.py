"""Prefill and decode apart, with constant numbers of replicas: requests pass two pools.

Prefill never waits for decode. So all requests are simulated on the prefill replicas first, with
outputs of one token. From the end of its hand-over on, each is then simulated on the decode
replicas, with a prompt that takes no time. The first stage passes the router, if there is one.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from faro_lib.simulate.draws import Draws
from faro_lib.simulate.replicas import SHORTEST_S
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous, Disaggregated

# Jobs, draws, replicas, and which of all jobs these are -> latencies (requests,).
Latencies = Callable[[Sequence[Job], Draws, Sequence[int], slice], np.ndarray]


def in_two_stages(
    jobs: Sequence[Job], draws: Draws, replicas: Sequence[int], latencies: Latencies
) -> np.ndarray:
    """Latency of every request in s (requests,) if job j always has replicas[j] replicas.

    It is inf for a dropped request. Replicas of kind `disaggregated` have the roles that their
    `prefill` gives them. Jobs of other kinds have one stage only. `latencies` simulates replicas
    without roles.
    """
    first, counts, output_tokens = list(jobs), list(replicas), draws.output_tokens.copy()
    apart: dict[int, tuple[Disaggregated, slice]] = {}  # job -> its replicas and its requests
    for n, job in enumerate(jobs):
        if isinstance(job.replica, Disaggregated):
            first[n] = replace(job, replica=job.replica.does_both)
            if prefill := job.replica.prefill_of(replicas[n]):
                first[n] = replace(job, replica=job.replica.prefill_replica)
                apart[n] = job.replica, slice(*draws.first[n : n + 2])
                counts[n], output_tokens[apart[n][1]] = prefill, 1.0
    one_token = replace(draws, output_tokens=output_tokens)
    latency_s = latencies(first, one_token, counts, slice(None))
    for n, (replica, of_job) in apart.items():
        decode = replace(jobs[n], replica=replica.decode_replica)
        waited_s, later = latency_s[of_job], draws.output_tokens[of_job] - 1
        handover_s = replica.handover_s(draws.prompt_tokens[of_job])
        ready_s = draws.arrival_s[of_job] + waited_s + handover_s
        order = np.argsort(ready_s, kind="stable")
        order = order[np.isfinite(waited_s[order]) & (later[order] > 0)]
        arriving = replace(
            draws,
            first=np.array([0, len(order)]),
            arrival_s=ready_s[order],
            router_in_s=np.empty(0),
            router_out_s=np.empty(0),
            prompt_tokens=np.zeros(len(order)),
            output_tokens=later[order],
        )
        later_s = np.zeros(len(waited_s))  # from the first to the last token
        of_stage = [decode], arriving, [replicas[n] - counts[n]], slice(n, n + 1)
        later_s[order] = handover_s[order] + latencies(*of_stage)
        latency_s[of_job] = limited_latency_s(replica, waited_s, later_s, later)
    return latency_s


def limited_latency_s(
    replica: Continuous, waited_s: np.ndarray, later_s: np.ndarray, later: np.ndarray
) -> np.ndarray:
    """The latency in s (requests,) that `slo_on` selects, inf for a dropped request.

    `waited_s` is the time to the first token, and `later_s` the time from it to the last one. In
    it, `later` tokens came.
    """
    dropped = np.isinf(waited_s + later_s)
    later_s = np.where(dropped, 0.0, later_s)
    per_token_s = np.where(later > 0, later_s / np.maximum(later, 1), SHORTEST_S)
    latency_s = {
        "first_token": waited_s,
        "per_token": per_token_s,
        "end_to_end": waited_s + later_s,
        "both": np.maximum(waited_s, replica.per_token_weight * per_token_s),
    }[replica.slo_on]
    return np.where(dropped, np.inf, latency_s)
