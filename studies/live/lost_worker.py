"""Delete a Ray worker during a live run, and tabulate requests, workers and replicas."""

import threading
import time
from typing import Any, Self

import numpy as np
import pandas as pd

from faro_lib.control import Step
from faro_ops.advise.profile.load_generator import DROPPED, FAILED, SERVED, UNSENT, Script, Sent
from studies.live.exclusive import RayWorkers
from studies.live.recovery import STEP_S


class LostWorker:
    """A context in which a thread deletes a worker at `at_s` and counts ready workers.

    It counts every STEP_S seconds. Times are wall seconds since the Unix time `origin_s`. `ready`
    is the list of (second, ready workers).
    """

    def __init__(self, workers: RayWorkers, origin_s: float, at_s: float):
        self.workers = workers
        self.origin_s = origin_s
        self.at_s = at_s
        self.ready: list[tuple[float, int]] = []
        self.error: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lost worker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)
        if self.error:
            raise self.error

    def _run(self) -> None:
        deleted = False
        second = 0
        while not self._ended.wait(max(0.0, self.origin_s + second - time.time())):
            try:
                if not deleted and second >= self.at_s:
                    self.workers.delete_one()
                    deleted = True
                self.ready.append((second, self.workers.ready()))
            except (OSError, ValueError) as error:
                if not deleted:  # an error after the deletion only leaves a gap in `ready`
                    self.error = error
            second += STEP_S


def recovery_table(
    lost: LostWorker, script: Script, sent: Sent, slo_s: np.ndarray, steps: list[Step], scale: float
) -> pd.DataFrame:
    """Requests by outcome, ready workers, capacity and replicas, one row per STEP_S wall seconds.

    `slo_s` (jobs,) is in trace seconds; `scale` is trace seconds per wall second.
    """
    second = np.array([at_s for at_s, _ in lost.ready])
    edges = np.append(second, second[-1] + STEP_S)
    late = sent.latency_s * scale > slo_s[script.job]
    outcomes = {
        "in_time": (sent.outcome == SERVED) & ~late,
        "slo_missed": (sent.outcome == SERVED) & late,
        "dropped": sent.outcome == DROPPED,
        "failed": (sent.outcome == FAILED) | (sent.outcome == UNSENT),
    }
    columns: dict[str, Any] = {"second": second}
    for name, chosen in outcomes.items():
        columns[name] = np.histogram(script.due_s[chosen], edges)[0]
    columns["workers"] = [workers for _, workers in lost.ready]
    ticked_s = [step.observation.now_s / scale for step in steps]
    latest = np.searchsorted(ticked_s, second, side="right") - 1
    seen = [steps[max(0, tick)].observation for tick in latest]
    columns["capacity"] = [one.capacity for one in seen]
    columns["replicas"] = [int(one.running.sum()) for one in seen]
    return pd.DataFrame(columns | {"deleted_s": lost.at_s})
