"""An hour of Faro on a kind cluster under a steady load, with the soak's faults.

The faults are those of soak_faults.py that exist on kind, in an order that follows from the seed,
until the time is over. What must hold is in soak_invariants.py. The load is steady, so the twin of
a service is what it had before the fault.

    KUBECONFIG=... python tests/support/soak_kind.py --minutes 60 --out data/recorded-faults

writes three tables: events.csv, looks.csv (every five seconds) and lost.csv (a row per request that
failed). `--fault NAME` has only this fault.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from k8s_faro import REQUEST_S
from k8s_models import CORES, Prometheus
from k8s_world import (
    ROOT,
    World,
    until,
)
from soak import LOOK_S, befall, pass_time
from soak_faults import JOB, Fault, faults_of
from soak_invariants import Invariants
from soak_kind_requests import (
    NAMES,
    WHOLE_S,
    Event,
    Look,
    Lost,
    Watcher,
    as_text,
    attributed,
    cost,
    load_image,
    load_pod,
    write_table,
)
from soak_kind_world import KindWorld, seconds_since
from soak_world import TICK_S

from faro_ops.operate.kube.client import ApiError

STARTED_S = 600.0  # Prometheus has to see some minutes of load first


class Before:
    """The twin of a world under a steady load: what each job had before the fault."""

    def __init__(self, had: dict[str, int | None]):
        self.had = had

    def band(self, job: str, *_: float) -> tuple[float, float]:
        return (self.had[job] or 0) - 1, math.inf


class KindInvariants(Invariants):
    """What must hold, as far as the API server and the requests show it.

    looks : what was seen, every LOOK_S.
    """

    # A machine that is busy may start a controller slowly.
    gap_s = WHOLE_S

    def __init__(self, began_s: float = 0.0):
        super().__init__(Before(dict.fromkeys(NAMES, 0)), troubled=())
        self.unix_began_s = began_s
        self.looks: list[Look] = []
        self.looked_s = -math.inf
        self.decided_at = ""
        self.of_itself_until_s: dict[str, float] = {}  # jobs that a fault may still change

    def begin(self, world: KindWorld, fault: Fault, job: str) -> None:
        world.refresh()
        self.twin = Before(world.targets())
        if fault.changes == JOB:
            for one in NAMES if fault.both else (job,):
                self.of_itself_until_s[one] = math.inf
        super().begin(world, fault, job)

    def end(self, world: KindWorld) -> None:
        """Wait until the fault is seen, and check what was counted."""
        assert self.fault
        if self.fault.state or self.fault.order:
            world.wait(lambda: not self.unseen(world), WHOLE_S, "the fault is seen")
        self.reasons.update(world.failures(world.clock.now_s - self.began_s))
        super().end(world)
        for one, until_s in self.of_itself_until_s.items():
            if math.isinf(until_s):
                self.of_itself_until_s[one] = world.clock.now_s + WHOLE_S

    def unseen(self, world: KindWorld) -> list[str]:
        world.refresh()
        return super().unseen(world)

    def look(self, world: KindWorld) -> None:
        now_s = world.clock.now_s
        if now_s < self.looked_s + LOOK_S:
            return
        self.looked_s = now_s
        self.troubled = tuple(
            one for one, until_s in self.of_itself_until_s.items() if now_s < until_s
        )
        self.looks.append(Look(round(time.time() - self.unix_began_s, 1), load=load_per_core()))
        before = self.targets
        with contextlib.suppress(ApiError):
            world.refresh()
            self.looks[-1] = self.seen(world)
            super().look(world)
            self._decisions(world, before or self.targets)

    def _decisions(self, world: KindWorld, before: dict[str, int | None]) -> None:
        had, has = (np.array([one[job] for job in NAMES]) for one in (before, self.targets))
        self.slow_fall(world, had, has)
        decided = world.status.get("lastDecisionTime", "")
        if decided != self.decided_at and world.leader:
            self.decided_at = decided
            self.ticked.add(world.leader.process.pid)
            self.decided(world, had, has, world.status.get("capacityCores", math.nan) / CORES)

    def seen(self, world: KindWorld) -> Look:
        """A row of looks.csv."""
        status = world.status
        ready = {name: world.found[name]["status"].get("readyReplicas", 0) for name in NAMES}
        decided = status.get("lastDecisionTime")
        wrong = [
            f"{each['type']}={each['status']} {each.get('reason', '')}"
            for each in status.get("conditions", [])
            if each["type"] != "Acting"
        ]
        return Look(
            round(time.time() - self.unix_began_s, 1),
            targets=as_text(world.targets()),
            ready=as_text(ready),
            leader=status.get("controller", ""),
            decided_s_ago=round(seconds_since(decided), 1) if decided else math.nan,
            capacity=float(status.get("capacityCores", math.nan)),
            reason=status.get("reason", ""),
            conditions="; ".join(wrong),
            load=load_per_core(),
        )


def load_per_core() -> float:
    return os.getloadavg()[0] / (os.cpu_count() or 1)


@dataclass
class Outcome:
    """What an hour has seen.

    broken : what should have held and did not, one line each.
    """

    events: list[Event]
    looks: list[Look]
    lost: list[Lost]
    broken: list[str]

    def write(self, folder: Path) -> None:
        write_table(folder / "events.csv", Event, self.events)
        write_table(folder / "looks.csv", Look, self.looks)
        write_table(folder / "lost.csv", Lost, self.lost)


def problems(events: list[Event], lost: list[Lost]) -> list[str]:
    """What did not hold beside the invariants: one line each."""
    unexplained = [
        f"{one.at_s:.0f} s: a request to {one.job} was lost without a killed pod"
        for one in lost
        if not one.pod
    ]
    not_whole = [
        f"{one.at_s:.0f} s: after {one.event!r}, all was not as before"
        for one in events
        if math.isinf(one.whole_s)
    ]
    return list(dict.fromkeys(unexplained + not_whole))


def drawn(seed: int, names: tuple[str, ...] = ()) -> Iterator[tuple[Fault, str]]:
    """The faults on kind in an order that follows from the seed, and the job that each befalls."""
    rng = np.random.default_rng(seed)
    faults = faults_of("kind", names)
    while True:
        for place in rng.permutation(len(faults)):
            yield faults[place], str(rng.choice(NAMES))


def run(minutes: float, folder: Path, seed: int = 0, names: tuple[str, ...] = ()) -> Outcome:
    """Run the hour; with `names`, only these faults. Its namespaces are deleted at the end."""
    with contextlib.ExitStack() as stack:
        elsewhere = stack.enter_context(contextlib.closing(World(folder)))
        prometheus = Prometheus(elsewhere.api)  # is installed
        load_image()
        watcher = Watcher()
        world = stack.enter_context(contextlib.closing(KindWorld(folder, prometheus, watcher)))
        path = load_pod(world, elsewhere, 60 * minutes + STARTED_S + 4 * WHOLE_S)
        until(world.is_whole, STARTED_S, lambda: f"the first plan: {world.plan()}")
        began_s = time.time()
        checked = KindInvariants(began_s)
        world.look = lambda: checked.look(world)
        checked.start(world)
        events: list[Event] = []
        broken: list[str] = []
        with watcher.watching(world.namespace):
            pass_time(world, TICK_S, checked, None)
            for fault, job in drawn(seed, names):
                events.append(happen(fault, job, world, checked, began_s, broken))
                if time.time() > began_s + 60 * minutes:
                    break
            time.sleep(REQUEST_S + 2)  # requests under way end
        lines = list(world.api.lines(f"{path}/log", 10.0))
        elsewhere.api.send("DELETE", path, gracePeriodSeconds="0")
    counts = [one for one in lines if "sent" in one]
    failures = [one for one in lines if "status" in one and one["at"] >= began_s]
    lost = attributed(failures, watcher.all_lives(), events, began_s)
    for event in events:
        cost(event, counts, lost, checked.looks, began_s)
    broken += [*checked.figures.broken, *problems(events, lost)]
    return Outcome(events, checked.looks, lost, broken)


def happen(
    fault: Fault,
    job: str,
    world: KindWorld,
    checked: KindInvariants,
    began_s: float,
    broken: list[str],
) -> Event:
    """Let a fault befall a job, and wait until all is as before."""
    event = Event(fault.name, round(time.time() - began_s, 1))
    print(f"{event.at_s:6.0f} s {event.event} ({job})", flush=True)
    try:
        befall(world, checked, fault, job)
        event.lasted_s = round(time.time() - began_s - event.at_s, 1)
        world.wait(world.is_whole, WHOLE_S, "as before")
        event.whole_s = round(time.time() - began_s - event.at_s, 1)
    except Exception as error:  # the other faults are worth their figures
        broken.append(f"{event.at_s:.0f} s: {event.event}: {str(error) or repr(error)}"[:600])
        with contextlib.suppress(Exception):
            fault.end(world, job)
    return event


def report(outcome: Outcome) -> str:
    """What an hour has seen, as text."""
    lines = ["\t".join(one.name for one in fields(Event))]
    lines += ["\t".join(map(str, asdict(one).values())) for one in outcome.events]
    lines.append(f"{len(outcome.lost)} requests failed")
    lines += [f"broken: {one}" for one in outcome.broken or ["nothing"]]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=ROOT / "data/recorded-faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], help="only this fault; repeatable")
    arguments = parser.parse_args()
    known = [one.name for one in faults_of("kind")]
    if unknown := [name for name in arguments.fault if name not in known]:
        parser.error(f"--fault {unknown[0]!r} is unknown; accepted: {', '.join(known)}")
    with tempfile.TemporaryDirectory() as name:
        seen = run(arguments.minutes, Path(name), arguments.seed, tuple(arguments.fault))
    seen.write(arguments.out)
    print(report(seen))
    sys.exit(bool(seen.broken))
