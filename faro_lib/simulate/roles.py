"""Prefill and decode replicas (kind `disaggregated`): the requests of a job pass two pools.

A new replica has the role that `Disaggregated.prefill` adds for the number of replicas that then
serve, and keeps it. A removed one finishes what it holds. Without a prefill replica, the others do
both. The router of the paper's model is passed before and after prefill.

Prefill never waits for decode, so the replicas of each role are `OwnReplicas` of a job, and those
of decode are advanced after those of prefill.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.simulate.draws import Draws
from faro_lib.simulate.own_replicas import OwnReplicas
from faro_lib.simulate.replicas import SHORTEST_S
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous, Disaggregated


def without_roles(job: Job) -> Job:
    """The job with replicas that do both; as it is if its replicas are of another kind."""
    if not isinstance(job.replica, Disaggregated):
        return job
    return replace(job, replica=job.replica.does_both)


def without_prefill(job: Job, replicas: int) -> bool:
    """Whether this number of the job's replicas has no prefill replica, so that all do both."""
    return isinstance(job.replica, Disaggregated) and not job.replica.prefill_of(replicas)


class Stage:
    """The replicas of one role. Requests are entries 0, 1, ..., in the order that they reach them.

    There is room for so many `requests`, and `router` says whether they pass one. `rules` are the
    dispatch, queue_limit and places (1,) of `OwnReplicas`.
    """

    def __init__(
        self, job: Job, requests: int, router: bool, seed: int, rules: tuple[str, int, np.ndarray]
    ):
        passes = np.zeros((2, requests if router else 0))
        self._draws = Draws(
            first=np.zeros(2, np.int64),
            arrival_s=np.zeros(requests),
            router_in_s=passes[0],
            service_s=np.ones(requests),
            router_out_s=passes[1],
            coin=np.zeros(requests, np.float32),
            seed=seed,
            prompt_tokens=np.zeros(requests),
            output_tokens=np.zeros(requests),
        )
        self.own = OwnReplicas((job,), self._draws, 0, *rules)
        self.request = np.zeros(requests, np.int64)  # of each entry
        self._gone = np.zeros(requests, bool)
        self._oldest = 0  # entries before it are gone

    @property
    def replicas(self) -> int:
        return len(self.own.active[0])

    @property
    def latency_s(self) -> np.ndarray:
        """Seconds since an entry reached the replicas, (entries,); not > 0 before it is gone."""
        return self.own.requests.latency_s

    def feed(self, request: np.ndarray, **draws: Any) -> None:
        """Let requests reach the replicas, in this order. `draws` are fields of `Draws`."""
        entries = slice(self._draws.first[1], self._draws.first[1] + len(request))
        self.request[entries], self.latency_s[entries] = request, 0.0
        for name, values in draws.items():
            array = getattr(self._draws, name)
            if len(array):  # there may be no router
                array[entries] = values
        self._draws.first[1] = entries.stop

    def gone(self) -> np.ndarray:
        """The entries that were served or dropped since the last call."""
        entries = np.arange(self._oldest, self._draws.first[1])
        gone = entries[(self.latency_s[entries] > 0) & ~self._gone[entries]]
        self._gone[gone] = True
        self._oldest += int(np.append(self._gone[entries], False).argmin())
        return gone

    def taken(self) -> np.ndarray:
        """Take away the entries that wait for a replica, and return them."""
        entries = self.own.take_waiting(0)
        self._gone[entries] = True
        return entries


class RoleReplicas:
    """The replicas of one job of kind `disaggregated`, and its requests.

    `own` has the requests of all jobs. Job n waits, is dropped and ends there as other jobs do. The
    other arguments are those of `OwnReplicas`.
    """

    def __init__(
        self, n: int, job: Job, draws: Draws, own: OwnReplicas, dispatch: str, queue_limit: int
    ):
        assert isinstance(job.replica, Disaggregated)
        assert own.kinds is not None  # because there the replicas of this job are continuous
        self._n, self._replica, self._draws, self._own = n, job.replica, draws, own
        self._first_token_s = own.kinds.first_token_s
        room = int(np.diff(draws.first)[n]), bool(len(draws.router_in_s)), draws.seed
        rules = dispatch, queue_limit, own.station.places[n : n + 1]
        self._prefill = Stage(replace(job, replica=job.replica.prefill_replica), *room, rules)
        self._decode = Stage(replace(job, replica=job.replica.decode_replica), *room, rules)
        self._reaches_s = draws.arrival_s.copy()  # when requests reach the stage that is next
        self._waited_s = np.zeros(len(draws.arrival_s))  # from arrival to the end of prefill
        self._moving = np.empty(0, np.int64)  # requests on their way to the decode replicas
        self._now_s = -np.inf
        self._ended = 0

    @property
    def ongoing(self) -> int:
        """Requests that have arrived and have not ended."""
        return int(self._own.station.head[self._n] - self._draws.first[self._n]) - self._ended

    def start(self, count: int) -> None:
        """Give the job its first replicas before any request has arrived."""
        prefill = self._replica.prefill_of(count)
        self._prefill.own.start(0, prefill)
        self._decode.own.start(0, count - prefill)

    def add_replica(self, now_s: float) -> None:
        """Add a replica with the role that one more replica brings."""
        self.advance(now_s)
        prefill = self._replica.prefill_of(self._prefill.replicas + self._decode.replicas + 1)
        stage = self._prefill if prefill > self._prefill.replicas else self._decode
        stage.own.add_replica(0, now_s)

    def remove_replica(self, now_s: float) -> None:
        """Remove the newest replica of the role that one replica less does without."""
        self.advance(now_s)
        prefill = self._replica.prefill_of(self._prefill.replicas + self._decode.replicas - 1)
        stage = self._prefill if prefill < self._prefill.replicas else self._decode
        stage.own.remove_replica(0, now_s)

    def drop_waiting(self, now_s: float) -> None:
        """Drop all requests that wait for a replica."""
        for stage in (self._prefill, self._decode):
            stage.own.drop_waiting(0, now_s)
        self.advance(now_s)

    def advance(self, until_s: float) -> None:
        """Process the events of the job's requests up to `until_s`."""
        draws, station, n = self._draws, self._own.station, self._n
        for stage in (self._prefill, self._decode):
            stage.own.station.drop[0] = station.drop[n]
        first, end = station.next_arrival[n], draws.first[n + 1]
        end = first + np.searchsorted(draws.arrival_s[first:end], until_s, "right")
        arriving = np.arange(first, end)
        station.next_arrival[n] = station.head[n] = end
        self._own.requests.latency_s[arriving] = -draws.arrival_s[arriving]
        if self._prefill.replicas:
            self._prefill.feed(
                arriving,
                arrival_s=draws.arrival_s[arriving],
                **self._passes(arriving),
                coin=draws.coin[arriving],
                prompt_tokens=draws.prompt_tokens[arriving],
                output_tokens=1.0,
            )
        else:
            self._moving = np.append(self._moving, arriving)
        self._prefill.own.advance(0, 1, until_s)
        self._hand_over(self._prefill.gone())
        if not self._prefill.replicas:  # the last one has been removed
            entries = self._prefill.taken()
            request, routed_s = self._prefill.request[entries], -self._prefill.latency_s[entries]
            self._reaches_s[request] = np.maximum(routed_s, self._now_s)
            self._moving = np.append(self._moving, request)
        self._let_decode(until_s)
        self._now_s = until_s

    def _passes(self, request: np.ndarray) -> dict[str, np.ndarray]:
        """The passes of requests through the router, if there is one."""
        draws = self._draws
        if not len(draws.router_in_s):
            return {}
        passes = {"router_in_s": draws.router_in_s, "router_out_s": draws.router_out_s}
        return {name: of_all[request] for name, of_all in passes.items()}

    def _handover_s(self, request: np.ndarray) -> np.ndarray:
        return self._replica.handover_s(self._draws.prompt_tokens[request])

    def _hand_over(self, entries: np.ndarray) -> None:
        """Hand over what prefill replicas have computed; some requests end there."""
        draws, request = self._draws, self._prefill.request[entries]
        waited_s = self._waited_s[request] = self._prefill.latency_s[entries]
        goes_on = np.isfinite(waited_s) & (draws.output_tokens[request] > 1)
        self._end(request[~goes_on], waited_s[~goes_on], np.zeros(np.sum(~goes_on)))
        request, waited_s = request[goes_on], waited_s[goes_on]
        self._first_token_s[request] = draws.arrival_s[request] + waited_s
        self._reaches_s[request] = self._first_token_s[request] + self._handover_s(request)
        if self._replica.slo_on == "first_token":
            self._own.requests.latency_s[request] = waited_s
        self._moving = np.append(self._moving, request)

    def _let_decode(self, until_s: float) -> None:
        """Advance the decode replicas, which requests reach in the order of time."""
        draws = self._draws
        due = self._reaches_s[self._moving] <= until_s
        request, self._moving = np.sort(self._moving[due]), self._moving[~due]
        request = request[np.argsort(self._reaches_s[request], kind="stable")]
        prefilled = self._first_token_s[request] > 0
        passes = self._passes(request)
        self._decode.feed(
            request,
            arrival_s=self._reaches_s[request],
            **{name: np.where(prefilled, 0.0, of_all) for name, of_all in passes.items()},
            coin=np.where(prefilled, 1.0, draws.coin[request]),
            prompt_tokens=np.where(prefilled, 0.0, draws.prompt_tokens[request]),
            output_tokens=draws.output_tokens[request] - prefilled,
        )
        self._decode.own.advance(0, 1, until_s)
        entries = self._decode.gone()
        request, spent_s = self._decode.request[entries], self._decode.latency_s[entries]
        prefilled, served = self._first_token_s[request] > 0, np.isfinite(spent_s)
        kinds = self._decode.own.kinds
        assert kinds is not None  # because the replicas are continuous
        # Without a prefill replica, a decode replica gave the first token.
        first_s = kinds.first_token_s[entries]
        waited_s = np.where(prefilled, self._waited_s[request], first_s - draws.arrival_s[request])
        from_first_s = self._reaches_s[request] + spent_s - first_s
        later_s = np.where(prefilled, self._handover_s(request) + spent_s, from_first_s)
        self._end(request, np.where(served, waited_s, np.inf), np.where(served, later_s, 0.0))

    def _end(self, request: np.ndarray, waited_s: np.ndarray, later_s: np.ndarray) -> None:
        """Set the latencies of requests that end, and count them.

        `waited_s` is the time to the first token, inf for a dropped request, and `later_s` the time
        from it to the last one.
        """
        arrival_s = self._draws.arrival_s[request]
        later = self._draws.output_tokens[request] - 1
        latency_s = limited_latency_s(self._replica, waited_s, later_s, later)
        self._own.requests.latency_s[request] = latency_s
        self._ended += len(request)
        # A dropped request counts as ended when it reached the stage that dropped it.
        reached_s = self._reaches_s[request] - arrival_s
        spent_s = np.where(np.isfinite(waited_s), waited_s + later_s, reached_s)
        second = (arrival_s + spent_s).astype(np.int64)
        station = self._own.station
        counted = second < station.finished.shape[1]
        np.add.at(station.finished[self._n], second[counted], 1)
        np.add.at(station.finished_latency_s[self._n], second[counted], spent_s[counted])


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
