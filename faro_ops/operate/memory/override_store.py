"""Where operators' orders are kept: rows of a FaroPlan, or of a file next to a run's journal.

Each row is one order. A row that is invalid is an order that is not in force; it costs the other
rows nothing, and only `faro set --clear` or a person removes it.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

from faro_lib.files import atomic_write
from faro_ops.operate.memory.overrides import Orders, Override, RejectedOrder

LOCK_S = 10.0  # longest wait for another `faro set` that changes the same file
INVALID = (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError)
Order = Override | RejectedOrder
Parse = Callable[[Mapping[str, Any]], Override]


class OverrideStore(Protocol):
    """The place where the orders of one run are kept."""

    def read(self) -> Orders | None:
        """The orders; None if the place does not exist. Raises ValueError or OSError."""

    def change(
        self, removes: Callable[[Order], bool], adds: Override | None = None
    ) -> list[Override]:
        """Remove and add orders; return the removed ones. Orders that others add meanwhile stay.

        Raises ValueError or OSError, and changes nothing then.
        """


def parsed(row: Any, parse: Parse) -> Order:
    """The order in a row; a RejectedOrder with the reason if the row is invalid."""
    try:
        if not isinstance(row, Mapping):
            raise ValueError("it must be a mapping with a job")
        if "job" not in row:
            raise ValueError("it names no job")
        return parse(row)
    except INVALID as error:
        job = row.get("job") if isinstance(row, Mapping) else ""
        text = json.dumps(row, default=str)
        return RejectedOrder(job if isinstance(job, str) else "", text, str(error))


def orders_in(rows: Sequence[Any], parse: Parse) -> Orders:
    """The orders in the rows."""
    orders = [parsed(row, parse) for row in rows]
    return Orders(
        tuple(one for one in orders if isinstance(one, Override)),
        tuple(one for one in orders if isinstance(one, RejectedOrder)),
    )


def changed_rows(
    rows: Sequence[Any], parse: Parse, removes: Callable[[Order], bool]
) -> tuple[list[Any], list[Override]]:
    """(the rows that stay, the orders that `removes` selects).

    Rows stay as they were written, also invalid ones. Orders that are over go, too.
    """
    kept, removed = [], []
    for row in rows:
        order = parsed(row, parse)
        over = isinstance(order, Override) and order.over(time.time())
        if not over and not removes(order):
            kept.append(row)
        elif not over and isinstance(order, Override):
            removed.append(order)
    return kept, removed


# --- the file next to a journal -------------------------------------------------------------------


def path_of(journal: str | Path) -> Path:
    """The file with the overrides of a run, next to its journal."""
    return Path(f"{journal}.overrides.json")


class OverridesFile:
    """The orders in a file. Without the file, there are none."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def read(self) -> Orders:
        """The orders; ValueError if the file is no list of JSON, OSError if it cannot be read."""
        return orders_in(self._rows(), of_file_row)

    def change(
        self, removes: Callable[[Order], bool] = lambda order: False, adds: Override | None = None
    ) -> list[Override]:
        """Remove and add orders; return the removed ones.

        The file is replaced atomically, and locked against other writers meanwhile.
        """
        with locked(self.path):
            rows, removed = changed_rows(self._rows(), of_file_row, removes)
            if adds:
                rows.append(asdict(adds))
            with atomic_write(self.path) as partial:
                partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        return removed

    def _rows(self) -> list[Any]:
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError) as error:
            problem = " ".join(str(error).split())[:150]
            raise self._damaged(problem) from None
        if not isinstance(rows, list):
            raise self._damaged("it must be a list of orders")
        return rows

    def _damaged(self, problem: str) -> ValueError:
        return ValueError(f"{self.path}: not a file of `faro set` ({problem}); remove it")


def of_file_row(row: Mapping[str, Any]) -> Override:
    """The order in a row of the file; raises one of INVALID."""
    accepted = [field.name for field in fields(Override)]
    unknown = [str(name) for name in row if name not in accepted]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is unknown; accepted: {', '.join(accepted)}")
    return Override(**{"by": "?", "from_s": 0.0, **row})


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, a file next to it; ValueError if another process keeps it."""
    # A file of its own, because `path` itself is replaced.
    with Path(f"{path}.lock").open("a") as file:
        end_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end_s:
                    problem = f"another `faro set` has been writing it for {LOCK_S:g} s"
                    raise ValueError(f"{path}: {problem}; try again") from None
                time.sleep(0.02)
        yield
