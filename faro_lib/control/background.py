"""Work beside the loop, which never waits for it: in a thread, repeated in a thread, or in a limited child process."""

import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
SPAWN = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads


def in_thread(call: Callable[[], Result]) -> Future[Result]:
    """Run `call` in a thread that does not delay the end of the program."""
    outcome: Future[Result] = Future()
    threading.Thread(target=_settle, args=(outcome, call), daemon=True).start()
    return outcome


def polled(call: Callable[[], Result], every_s: float = 5.0) -> Callable[[], Result]:
    """A function that gives the latest answer of `call`, or raises its error, at once; a thread repeats the call."""
    latest: Future[Result] = Future()
    _settle(latest, call)

    def follow() -> None:
        nonlocal latest
        while True:
            time.sleep(every_s)
            newer: Future[Result] = Future()
            _settle(newer, call)
            latest = newer

    threading.Thread(target=follow, daemon=True).start()
    return lambda: latest.result()


def in_child(call: Callable[[], Result], limit_s: float, limit_gb: float) -> Result:
    """The result of `call` in a process of its own at the lowest priority; call and result are pickled.

    Raises what `call` raises; MemoryError at `limit_gb` GB of data; TimeoutError at `limit_s`; OSError if it crashes.
    """
    receiver, sender = SPAWN.Pipe(duplex=False)
    child = SPAWN.Process(target=_work, args=(sender, call, limit_s, limit_gb), daemon=True)
    child.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        child.join()
        if child.exitcode == -signal.SIGALRM:
            raise TimeoutError(f"it took longer than {limit_s:g} s") from None
        raise OSError(f"its process ended with exit status {child.exitcode}") from None
    if error:
        raise error
    return result


def _work(sender: Connection, call: Callable[[], Result], limit_s: float, limit_gb: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller, which then ends this process
    signal.setitimer(signal.ITIMER_REAL, limit_s)  # SIGALRM ends it, even if the controller is gone
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit_gb * 1e9),) * 2)
    os.nice(19)
    with suppress(OSError):  # if the machine runs out of memory, the kernel ends this process first
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        sender.send((call(), None))
    except MemoryError:
        sender.send((None, MemoryError(f"it needs more than {limit_gb:g} GB of memory")))
    except Exception as error:
        sender.send((None, error))


def _settle(outcome: Future[Result], call: Callable[[], Result]) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:
        outcome.set_exception(error)
