"""Prefill and decode replicas that come and go, in the simulator.

A new replica has the role that `Disaggregated.prefill` adds for the number of replicas that then
serve, and keeps it. A removed one finishes what it holds. Without a prefill replica, the others do
both. The router of the paper's model is passed before and after prefill.

Prefill never waits for decode, so each of a job's two pools is a `Serving` of its own, and decode
is advanced after prefill.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.simulate import Draws, SimulatedCluster
from faro_lib.simulate.apart import limited_latency_s
from faro_lib.simulate.events import Requests, Station
from faro_lib.simulate.serving import Serving
from faro_lib.workload import Job, pools_of
from faro_lib.workload.replicas import Continuous, Disaggregated

Stages = Callable[[Continuous, Draws], Serving]  # a `Serving` of one job, with these replicas


class Stage:
    """One of the two pools. Its requests are entries 0, 1, ..., in the order that they reach it.

    `draws` has room for all requests of the job, and `router` says whether it has a router.
    """

    def __init__(self, make: Stages, replica: Continuous, requests: int, router: bool, seed: int):
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
        self.serving = make(replica, self._draws)
        self.request = np.zeros(requests, np.int64)  # of each entry
        self._gone = np.zeros(requests, bool)
        self._oldest = 0  # entries before it are gone

    @property
    def replicas(self) -> int:
        return int(self.serving.station.active[0])

    @property
    def latency_s(self) -> np.ndarray:
        """Seconds since an entry reached the pool, (entries,); not > 0 before it is gone."""
        return self.serving.requests.latency_s

    def feed(self, request: np.ndarray, **draws: Any) -> None:
        """Let requests reach the pool, in this order. `draws` are fields of `Draws`."""
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
        entries = self.serving.take_waiting(0)
        self._gone[entries] = True
        return entries


class Apart:
    """The requests of one job of kind `disaggregated`, and its replicas.

    `requests` and `station` are those of all jobs, and `first_token_s` that of `replicas.Kinds`.
    """

    def __init__(
        self,
        job: int,
        replica: Disaggregated,
        draws: Draws,
        requests: Requests,
        station: Station,
        first_token_s: np.ndarray,
        make: Stages,
    ):
        self._job, self._replica, self._draws = job, replica, draws
        self._requests, self._station, self._first_token_s = requests, station, first_token_s
        room = int(np.diff(draws.first)[job]), bool(len(draws.router_in_s)), draws.seed
        self._prefill = Stage(make, replica.prefill_replica, *room)
        self._decode = Stage(make, replica.decode_replica, *room)
        self._reaches_s = draws.arrival_s.copy()  # when requests reach the pool that is next
        self._moving = np.empty(0, np.int64)  # requests on their way to the decode replicas
        self._now_s = -np.inf
        self._ended = 0

    @property
    def ongoing(self) -> int:
        """Requests that have arrived and have not ended."""
        return int(self._station.head[self._job] - self._draws.first[self._job]) - self._ended

    def add_replica(self, now_s: float) -> None:
        """Add a replica with the role that one more replica brings."""
        self.advance(now_s)
        prefill = self._replica.prefill_of(self._prefill.replicas + self._decode.replicas + 1)
        stage = self._prefill if prefill > self._prefill.replicas else self._decode
        stage.serving.add_replica(0, now_s)

    def remove_replica(self, now_s: float) -> None:
        """Remove the newest replica of the role that one replica less does without."""
        self.advance(now_s)
        prefill = self._replica.prefill_of(self._prefill.replicas + self._decode.replicas - 1)
        stage = self._prefill if prefill < self._prefill.replicas else self._decode
        stage.serving.remove_replica(0, now_s)

    def drop_waiting(self, now_s: float) -> None:
        """Drop all requests that wait for a replica."""
        for stage in (self._prefill, self._decode):
            stage.serving.drop_waiting(0, now_s)
        self.advance(now_s)

    def advance(self, until_s: float) -> None:
        """Process the events of the job's requests up to `until_s`."""
        draws, station, job = self._draws, self._station, self._job
        for stage in (self._prefill, self._decode):
            stage.serving.station.drop[0] = station.drop[job]
        first, end = station.next_arrival[job], draws.first[job + 1]
        end = first + np.searchsorted(draws.arrival_s[first:end], until_s, "right")
        arriving = np.arange(first, end)
        station.next_arrival[job] = station.head[job] = end
        self._requests.latency_s[arriving] = -draws.arrival_s[arriving]
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
        self._prefill.serving.advance(until_s)
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

    def _hand_over(self, entries: np.ndarray) -> None:
        """Hand over what prefill replicas have computed; some requests end there."""
        draws, request = self._draws, self._prefill.request[entries]
        arrival_s, waited_s = draws.arrival_s[request], self._prefill.latency_s[entries]
        goes_on = np.isfinite(waited_s) & (draws.output_tokens[request] > 1)
        self._end(request[~goes_on], waited_s[~goes_on], np.zeros(np.sum(~goes_on)))
        request, first_s = request[goes_on], (arrival_s + waited_s)[goes_on]
        self._first_token_s[request] = first_s
        handover_s = self._replica.handover_s(draws.prompt_tokens[request])
        self._reaches_s[request] = first_s + handover_s
        if self._replica.slo_on == "first_token":
            self._requests.latency_s[request] = waited_s[goes_on]
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
        self._decode.serving.advance(until_s)
        entries = self._decode.gone()
        request, spent_s = self._decode.request[entries], self._decode.latency_s[entries]
        prefilled = self._first_token_s[request] > 0
        kinds = self._decode.serving.kinds
        assert kinds is not None  # because the replicas are continuous
        own_s = np.where(np.isfinite(spent_s), kinds.first_token_s[entries], 0.0)
        first_s = np.where(prefilled, self._first_token_s[request], own_s)
        ends_s = self._reaches_s[request] + spent_s
        waited_s = np.where(np.isfinite(spent_s), first_s - draws.arrival_s[request], np.inf)
        self._end(request, waited_s, np.where(np.isfinite(spent_s), ends_s - first_s, 0.0))

    def _end(self, request: np.ndarray, waited_s: np.ndarray, later_s: np.ndarray) -> None:
        """Set the latencies of requests that end, and count them.

        `waited_s` is the time to the first token, inf for a dropped request, and `later_s` the time
        from it to the last one.
        """
        arrival_s = self._draws.arrival_s[request]
        later = self._draws.output_tokens[request] - 1
        self._requests.latency_s[request] = limited_latency_s(
            self._replica, waited_s, later_s, later
        )
        self._ended += len(request)
        # A dropped request counts as ended when it reached the pool that dropped it.
        reached_s = self._reaches_s[request] - arrival_s
        spent_s = np.where(np.isfinite(waited_s), waited_s + later_s, reached_s)
        second = (arrival_s + spent_s).astype(np.int64)
        finished = self._station.finished[self._job]
        counted = second < len(finished)
        np.add.at(finished, second[counted], 1)
        finished_s = self._station.finished_latency_s[self._job]
        np.add.at(finished_s, second[counted], spent_s[counted])


class ServingApart(Serving):
    """`Serving`, also of jobs of kind `disaggregated`."""

    def __init__(
        self,
        jobs: Sequence[Job],
        draws: Draws,
        seconds: int,
        dispatch: str,
        queue_limit: int,
        places: np.ndarray,
        **options: Any,
    ):
        plain = [
            replace(job, replica=job.replica.does_both)
            if isinstance(job.replica, Disaggregated)
            else job
            for job in jobs
        ]
        super().__init__(plain, draws, seconds, dispatch, queue_limit, places, **options)
        self.apart: dict[int, Apart] = {}  # by job
        for n, job in enumerate(jobs):
            if not isinstance(job.replica, Disaggregated):
                continue

            def make(replica: Continuous, fed: Draws, n: int = n) -> Serving:
                alone = (replace(plain[n], replica=replica),)
                rules = dispatch, queue_limit, places[n : n + 1]
                return Serving(alone, fed, 0, *rules, units=pools_of(alone))

            assert self.kinds is not None  # because replicas of this job are continuous
            of_all = self.requests, self.station, self.kinds.first_token_s
            self.apart[n] = Apart(n, job.replica, draws, *of_all, make)
        self._alone = [
            (job, job + 1)
            for first, end in self._alone
            for job in range(first, end)
            if job not in self.apart
        ]

    def advance(self, until_s: float) -> None:
        super().advance(until_s)
        for apart in self.apart.values():
            apart.advance(until_s)

    @property
    def ongoing(self) -> np.ndarray:
        ongoing = super().ongoing
        for job, apart in self.apart.items():
            ongoing[job] = apart.ongoing
        return ongoing

    def add_replica(self, unit: int, now_s: float) -> None:
        apart = self._apart_of(unit)
        apart.add_replica(now_s) if apart else super().add_replica(unit, now_s)

    def remove_replica(self, unit: int, now_s: float) -> None:
        apart = self._apart_of(unit)
        apart.remove_replica(now_s) if apart else super().remove_replica(unit, now_s)

    def drop_waiting(self, job: int, now_s: float) -> None:
        if job in self.apart:
            self.apart[job].drop_waiting(now_s)
        else:
            super().drop_waiting(job, now_s)

    def _apart_of(self, unit: int) -> Apart | None:
        return self.apart.get(self._units[unit].jobs[0])


class ClusterApart(SimulatedCluster):
    """The simulated cluster, also with jobs of kind `disaggregated`."""

    make_serving = ServingApart
