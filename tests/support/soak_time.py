"""Virtual time: programs with threads run as fast as they compute, and always in the same order.

Inside `VirtualTime.installed`, threads that belong to a `Process` take turns: one runs, until it
sleeps, waits for a lock's condition, joins a thread or polls a pipe. When all of them wait, the
clock jumps to the earliest time at which one goes on. The programs need no change, because the
functions of `time`, `threading`, `select`, `datetime` and `os` that they call are replaced. Other
threads of the interpreter, such as those of pytest, keep the real functions.

A process can be killed, which ends its threads at their next wait, and paused, as by SIGSTOP.
"""

from __future__ import annotations

import _thread
import concurrent.futures
import contextlib
import datetime as datetimes
import math
import os
import select
import signal
import socket
import sqlite3
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from faro_ops.journal import database

SAID_LINES = 400  # lines of standard error that are kept of each process
REAL_WAIT_S = 150.0  # a thread that has not gone on for twice as long in real time has hung


class Killed(BaseException):
    """The process of this thread was killed. No `except Exception` catches it."""


@dataclass(eq=False)
class Process:
    """A program in virtual time.

    said : its last lines on standard error.
    full_disk : whether it cannot write its journal.
    ended : how its first thread ended: "" while it runs, "killed", or why.
    """

    name: str
    pid: int
    said: deque[str] = field(default_factory=lambda: deque(maxlen=SAID_LINES))
    lines: int = 0  # that it has said
    dead: bool = False
    paused_until_s: float = -math.inf
    full_disk: bool = False
    ended: str = ""
    handlers: dict[int, Any] = field(default_factory=dict)  # of signals

    def say(self, text: str) -> None:
        for line in text.splitlines():
            if line:
                self.said.append(line)
                self.lines += 1

    def terminate(self) -> None:
        """What SIGTERM does."""
        handler = self.handlers.get(signal.SIGTERM)
        if callable(handler):
            handler(signal.SIGTERM, None)


class Task:
    """A thread that takes turns with others, and what it waits for."""

    def __init__(self, process: Process, serial: int):
        self.process = process
        self.serial = serial
        self.turn = _thread.allocate_lock()
        self.turn.acquire()
        self.holds: Callable[[], object] = lambda: True
        self.until_s = math.inf
        self.finished = False

    def may_run(self, now_s: float) -> bool:
        if self.process.dead:
            return True
        if now_s < self.process.paused_until_s:
            return False
        return self.until_s <= now_s or bool(self.holds())

    def next_s(self, now_s: float) -> float:
        """The earliest later time at which it may run without another thread's doing."""
        paused_s = self.process.paused_until_s
        if now_s < paused_s:
            return paused_s if self.holds() else max(self.until_s, paused_s)
        return self.until_s


class VirtualTime:
    """The clock, the processes, and whose turn it is."""

    def __init__(self, now_s: float = 1e6, wall_s: float = 1.8e9, utc_offset_s: int = 3600):
        self.now_s = now_s  # monotonic
        self.wall_offset_s = wall_s - now_s
        self.utc_offset_s = utc_offset_s
        self._serial = 0
        self._tasks: dict[int, Task] = {}  # by the identifier of the thread
        self._waiting: list[Task] = []
        self._of_threads: dict[threading.Thread, Task] = {}
        self._pids = iter(range(1000, 10**9))
        self._real_select = select.select
        self._real_sleep = time.sleep
        self._real_start = threading.Thread.start
        self._real_join = threading.Thread.join
        self._real_wait = threading.Condition.wait
        self._real = {name: getattr(time, name) for name in ("time", "monotonic", "localtime")}

    @property
    def wall_s(self) -> float:
        return self.now_s + self.wall_offset_s

    @property
    def task(self) -> Task | None:
        """The task of the calling thread; None if it does not belong to a process."""
        return self._tasks.get(threading.get_ident())

    # --- turns ---------------------------------------------------------------------------------

    def block(self, holds: Callable[[], object], timeout_s: float | None = None) -> bool:
        """Let the other threads run until `holds()`; returns False if the time was over first."""
        task = self._tasks[threading.get_ident()]
        if task.process.dead:
            raise Killed
        task.holds = holds
        task.until_s = math.inf if timeout_s is None else self.now_s + max(0.0, timeout_s)
        self._waiting.append(task)
        following = self._following()
        if following is not task:
            following.turn.release()
            # Twice, because this whole process may have been suspended.
            if not any(task.turn.acquire(timeout=REAL_WAIT_S) for _ in range(2)):
                raise RuntimeError(f"{task.process.name} got no turn; another thread hangs")
        if task.process.dead:
            raise Killed
        return bool(holds())

    def _following(self) -> Task:
        """The task whose turn is next; moves the clock if nobody can run now."""
        while True:
            for task in self._waiting:  # the one that waits the longest first
                if task.may_run(self.now_s):
                    self._waiting.remove(task)
                    return task
            next_s = min((task.next_s(self.now_s) for task in self._waiting), default=math.inf)
            if math.isinf(next_s):
                names = sorted({task.process.name for task in self._waiting})
                raise RuntimeError(f"all threads wait for ever: {names}")
            self.now_s = max(self.now_s, next_s)

    def sleep(self, seconds: float) -> None:
        self.block(lambda: False, seconds)

    def process(self, name: str) -> Process:
        return Process(name, next(self._pids))

    def start(self, process: Process, work: Callable[[], object]) -> Process:
        """Run `work` as the first thread of a process; `Process.ended` says how it ended."""

        def first() -> None:
            try:
                work()
                process.ended = "done"
            except Killed:
                process.ended = "killed"
                raise
            except SystemExit as error:
                process.ended = f"exit: {error}"
            except BaseException as error:
                process.ended = f"error: {type(error).__name__}: {error}"
            process.dead = True  # a program's other threads end with it

        self._begin(threading.Thread(target=first, daemon=True, name=process.name), process)
        return process

    def kill(self, process: Process) -> None:
        process.dead = True

    def _begin(self, thread: threading.Thread, process: Process) -> None:
        self._serial += 1
        task = Task(process, self._serial)
        self._of_threads[thread] = task
        work = thread.run

        def run() -> None:
            self._tasks[threading.get_ident()] = task
            task.turn.acquire()
            try:
                if not process.dead:
                    work()
            except Killed:
                pass
            finally:
                task.finished = True
                del self._tasks[threading.get_ident()]
                del self._of_threads[thread]
                if self._waiting:
                    self._following().turn.release()

        thread.run = run  # type: ignore[method-assign]
        mine = self._tasks.pop(threading.get_ident(), None)  # so that `start` really waits
        try:
            self._real_start(thread)
        finally:
            if mine:
                self._tasks[threading.get_ident()] = mine
        self._waiting.append(task)

    # --- what is replaced ----------------------------------------------------------------------

    @contextlib.contextmanager
    def installed(self, *prefixes: str) -> Iterator[Process]:
        """Replace the functions; the caller's thread is that of the process that this yields.

        prefixes : of the names of modules whose own names for `datetime` and `ThreadPoolExecutor`
            are replaced, too.
        """
        driver = self.process("driver")
        task = Task(driver, 0)
        self._tasks[threading.get_ident()] = task
        with contextlib.ExitStack() as stack:
            for target, name, new in self._replacements():
                stack.enter_context(mock.patch.object(target, name, new))
            self._replace_names(stack, prefixes)
            try:
                yield driver
            finally:
                self._end_all()
                del self._tasks[threading.get_ident()]

    def _end_all(self) -> None:
        """Let every thread end, so that none outlives the run."""
        for one in list(self._of_threads.values()):
            one.process.dead = True
        for _ in range(10_000):
            if not self._of_threads:
                return
            self.sleep(0.0)

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        virtual = self

        def ours() -> bool:
            return threading.get_ident() in virtual._tasks

        def clock(name: str, value: Callable[[], float]) -> Callable[[], float]:
            real = virtual._real[name]
            return lambda: value() if ours() else real()

        yield time, "time", clock("time", lambda: virtual.wall_s)
        yield time, "monotonic", clock("monotonic", lambda: virtual.now_s)
        yield (
            time,
            "sleep",
            lambda seconds: virtual.sleep(seconds) if ours() else virtual._real_sleep(seconds),
        )

        def localtime(seconds: float | None = None) -> time.struct_time:
            if not ours():
                return virtual._real["localtime"](seconds)
            there = virtual.wall_s if seconds is None else seconds
            fields = tuple(time.gmtime(there + virtual.utc_offset_s))
            return time.struct_time((*fields, "soak", virtual.utc_offset_s))

        yield time, "localtime", localtime

        def wait(condition: Any, timeout: float | None = None) -> bool:
            if not ours():
                return virtual._real_wait(condition, timeout)
            if not condition._is_owned():
                raise RuntimeError("cannot wait on un-acquired lock")
            waiter = _thread.allocate_lock()
            waiter.acquire()
            condition._waiters.append(waiter)
            saved = condition._release_save()
            notified = False
            try:
                notified = virtual.block(lambda: not waiter.locked(), timeout)
            finally:
                condition._acquire_restore(saved)
                if not notified:
                    with contextlib.suppress(ValueError):
                        condition._waiters.remove(waiter)
            return notified

        yield threading.Condition, "wait", wait

        def start(thread: threading.Thread) -> None:
            task = virtual.task
            if task is None:
                virtual._real_start(thread)
            else:
                virtual._begin(thread, task.process)

        def join(thread: threading.Thread, timeout: float | None = None) -> None:
            task = virtual._of_threads.get(thread)
            if task is None or not ours():
                virtual._real_join(thread, timeout)
            else:
                virtual.block(lambda: task.finished, timeout)

        yield threading.Thread, "start", start
        yield threading.Thread, "join", join

        def polled(read: Any, write: Any, other: Any, timeout: float | None = None) -> Any:
            if not ours():
                return virtual._real_select(read, write, other, timeout)
            found: list[Any] = [([], [], [])]

            def ready() -> bool:
                found[0] = virtual._real_select(read, write, other, 0)
                return any(found[0])

            virtual.block(ready, timeout)
            return found[0]

        yield select, "select", polled

        def of_process(real: Callable[..., Any], value: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                task = virtual.task
                return real(*arguments) if task is None else value(task.process, *arguments)

            return call

        write = database.insert

        def insert(process: Process, *of: Any) -> None:
            if process.full_disk:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            write(*of)

        def handle(process: Process, number: int, handler: Any) -> Any:
            before = process.handlers.get(number, signal.SIG_DFL)
            process.handlers[number] = handler
            return before

        yield os, "getpid", of_process(os.getpid, lambda process: process.pid)
        yield database, "insert", of_process(write, insert)
        yield signal, "signal", of_process(signal.signal, handle)
        yield (
            socket,
            "gethostname",
            of_process(socket.gethostname, lambda process: process.name),
        )
        yield sys, "stderr", Output(virtual, sys.stderr, keep=True)
        yield sys, "stdout", Output(virtual, sys.stdout, keep=False)

    def _replace_names(self, stack: contextlib.ExitStack, prefixes: tuple[str, ...]) -> None:
        virtual = self

        class Datetime(datetimes.datetime):
            @classmethod
            def now(cls, tz: datetimes.tzinfo | None = None) -> datetimes.datetime:
                if virtual.task is None:
                    return datetimes.datetime.now(tz)
                if tz is not None:
                    return datetimes.datetime.fromtimestamp(virtual.wall_s, tz)
                shifted_s = virtual.wall_s + virtual.utc_offset_s
                there = datetimes.datetime.fromtimestamp(shifted_s, datetimes.UTC)
                return there.replace(tzinfo=None)

        new = {"datetime": Datetime, "ThreadPoolExecutor": InTurn}
        old = {
            "datetime": datetimes.datetime,
            "ThreadPoolExecutor": concurrent.futures.ThreadPoolExecutor,
        }
        # Modules that are imported later, or within a function, get it from here.
        stack.enter_context(mock.patch.object(concurrent.futures, "ThreadPoolExecutor", InTurn))
        # A default of an argument is what the name stood for when the function was defined.
        clocks = {self._real[name]: getattr(time, name) for name in ("time", "monotonic")}
        for name, module in list(sys.modules.items()):
            if not name.startswith(prefixes):
                continue
            for function in functions_of(module):
                defaults = function.__defaults__ or ()
                if any(callable(one) and one in clocks for one in defaults):
                    replaced = tuple(
                        clocks.get(one, one) if callable(one) else one for one in defaults
                    )
                    stack.enter_context(mock.patch.object(function, "__defaults__", replaced))
            for attribute, value in old.items():
                if getattr(module, attribute, None) is value:
                    stack.enter_context(mock.patch.object(module, attribute, new[attribute]))


def functions_of(module: Any) -> list[Any]:
    """The functions of a module, and the methods of its classes."""
    own = [
        one for one in vars(module).values() if getattr(one, "__module__", "") == module.__name__
    ]
    inside = [vars(one).values() for one in own if isinstance(one, type)]
    found = [*own, *(one for values in inside for one in values)]
    return [one for one in found if isinstance(one, types.FunctionType)]


class InTurn(concurrent.futures.Executor):
    """An executor that runs each call at once, in the caller's thread."""

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    def submit(self, call, /, *arguments, **options):
        future: concurrent.futures.Future = concurrent.futures.Future()
        try:
            future.set_result(call(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class Output:
    """Standard output or error: what a process writes is kept with it, or discarded."""

    def __init__(self, virtual: VirtualTime, real: Any, keep: bool):
        self._virtual, self._real, self._keep = virtual, real, keep

    def write(self, text: str) -> int:
        task = self._virtual.task
        if task is None or task.process.name == "driver":
            return self._real.write(text)
        if self._keep:
            task.process.say(text)
        return len(text)

    def flush(self) -> None:
        task = self._virtual.task
        if task is None:
            self._real.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
