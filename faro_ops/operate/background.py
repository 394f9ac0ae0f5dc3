"""Work in a thread or in a resource-limited child process that does not block the control loop."""

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
SPAWN = multiprocessing.get_context(
    "spawn"
)  # a forked child could hang on a lock that another thread holds


def in_thread(call: Callable[[], Result]) -> Future[Result]:
    """Run `call` in a daemon thread, which does not delay the program's exit; return its Future."""
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return outcome


def latest(call: Callable[[], Result], patience_s: float = 0.1) -> Callable[[], Result]:
    """A function that starts `call` in a thread and returns the newest result.

    It waits at most `patience_s` for the result of its own call.
    """
    asked = known = in_thread(call)
    wait((known,))  # no time limit, because `ask` needs a first result to return

    def ask() -> Result:
        nonlocal asked, known
        asked = in_thread(call) if asked.done() else asked
        wait((asked,), patience_s)
        known = (
            asked if asked.done() else known
        )  # keep the previous result until the new one is ready
        return known.result()  # or raise the error of `call`

    return ask


def in_child(call: Callable[[], Result], limit_s: float, limit_gb: float) -> Result:
    """Run `call` in a child process at the lowest priority and return its result.

    `call` and its result are pickled. Raises what `call` raises, MemoryError above `limit_gb` of
    data, TimeoutError after `limit_s`, and OSError if the child dies.
    """
    receiver, sender = SPAWN.Pipe(duplex=False)
    child = SPAWN.Process(target=_work, args=(sender, call, limit_s, limit_gb), daemon=True)
    child.start()
    sender.close()
    try:
        result, error = receiver.recv()
    except EOFError:
        child.join()
        late = child.exitcode == -signal.SIGALRM
        error = TimeoutError(f"it took longer than {limit_s:g} s") if late else None
        error = error or OSError(f"its process ended with exit status {child.exitcode}")
    if error:
        raise error
    return result


def _work(sender: Connection, call: Callable[[], Any], limit_s: float, limit_gb: float) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent, which then ends this process
    signal.setitimer(
        signal.ITIMER_REAL, limit_s
    )  # SIGALRM ends this process, even if its parent has died
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit_gb * 1e9),) * 2)
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(
            "1000"
        )  # if memory runs out, the kernel ends this process first
    try:
        answer: tuple[Any, Exception | None] = call(), None
    except MemoryError:
        answer = None, MemoryError(f"it needs more than {limit_gb:g} GB of memory")
    except Exception as error:
        answer = None, error
    sender.send(answer)
