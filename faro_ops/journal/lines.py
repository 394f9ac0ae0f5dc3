"""A journal as JSON lines: what `faro export` prints, and how such a file is read as a journal.

Each line is a record of `ticks`, and each tick has all its fields. An incomplete last
line is left out.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from faro_lib.files import lines_of
from faro_ops.journal.database import RecordRow, in_memory
from faro_ops.journal.ticks import HEADER, TICK, Header, Tick, acts, header_record, tick_record

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20  # several times the record of a tick with 10,000 jobs


def exported_lines(header: Header, tick: Tick, begins: bool) -> Iterator[str]:
    """The lines of a tick, with its header before if it `begins` a part."""
    if begins:
        yield json.dumps(header_record(header))
    yield json.dumps(tick_record(tick, None))


@contextmanager
def opened_lines(file: Path) -> Iterator[sqlite3.Connection]:
    """A database in memory with the records in the lines of a file (`database.opened`).

    ValueError if a line is not a record.
    """
    with closing(in_memory(_rows_of(file))) as connection:
        yield connection


def _rows_of(file: Path) -> Iterator[RecordRow]:
    part = 0
    with file.open("rb") as content:
        chunks = iter(partial(content.read, CHUNK_BYTES), b"")
        for n, line in enumerate(lines_of(chunks, MAX_LINE_BYTES), 1):
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise ValueError(f"it is longer than {MAX_LINE_BYTES >> 20} MiB")
                record = json.loads(line)
                kind = record["kind"]
                if kind == HEADER:
                    part = n
                    yield RecordRow.of(record, n, part, 0, float(record["start_s"]), False)
                elif kind == TICK and part:
                    now_s, plan = float(record["observation"]["now_s"]), record["plan"]
                    decided = plan.get("forecast_rps") is not None or acts(plan["reason"])
                    yield RecordRow.of(record, n, part, n, now_s, decided)
                else:
                    raise ValueError(f"kind={kind!r}")
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
                problem = "not a line of a journal that `faro export` has written"
                raise ValueError(f"{file}, line {n}: {problem}") from None
    if not part:
        raise ValueError(f"{file}: not a journal of `faro run`; it has no line")
