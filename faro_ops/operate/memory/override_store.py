"""Where operators' orders are kept: rows of a FaroPlan, or of a run's journal.

Each row is one order. A row that is invalid is an order that is not in force; it costs the other
rows nothing, and only `faro set --clear` or a person removes it.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from faro_ops.journal.documents import Texts
from faro_ops.operate.memory.overrides import Orders, Override, RejectedOrder

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


def order_in(row: Any, parse: Parse) -> Order:
    """The order in a row; a RejectedOrder with the reason if the row is invalid."""
    try:
        if not isinstance(row, Mapping):
            raise ValueError("it must be a mapping with a job")
        if "job" not in row:
            raise ValueError("it names no job")
        return parse(row)
    except ValueError as error:
        job = row.get("job") if isinstance(row, Mapping) else ""
        text = json.dumps(row, default=str)
        return RejectedOrder(job if isinstance(job, str) else "", text, str(error))


def orders_in(rows: Sequence[Any], parse: Parse) -> Orders:
    """The orders in the rows."""
    orders = [order_in(row, parse) for row in rows]
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
        order = order_in(row, parse)
        over = isinstance(order, Override) and order.over(time.time())
        if not over and not removes(order):
            kept.append(row)
        elif not over and isinstance(order, Override):
            removed.append(order)
    return kept, removed


# --- in a journal ---------------------------------------------------------------------------------


class JournalOverrides:
    """The orders in a journal."""

    def __init__(self, journal: str | Path):
        self._texts = Texts(journal, "order")
        self.path = self._texts.path

    def read(self) -> Orders:
        """The orders; ValueError if their file is damaged, OSError if it cannot be read."""
        return orders_in([_row(text.body) for text in self._texts.read()], Override.of)

    def change(
        self, removes: Callable[[Order], bool] = lambda order: False, adds: Override | None = None
    ) -> list[Override]:
        """Remove and add orders; return the removed ones."""
        with self._texts.changing() as (texts, gone, added):
            removed = []
            for text in texts:
                kept, of_text = changed_rows([_row(text.body)], Override.of, removes)
                removed += of_text
                if not kept:
                    gone.append(text.n)
            if adds:
                added.append(adds.model_dump_json())
        return removed


def _row(text: str | None) -> Any:
    """The row of an order; of a damaged one, a text that says so."""
    if text is None:
        return "a row that is damaged on the disk"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
