"""What a leader knows that must survive it: a small document with a version.

A journal stays with its pod, and another pod may lead next. The leader therefore saves a
`RunState` where the next leader finds it: in Kubernetes in a ConfigMap (kube/plan_state.py),
elsewhere in the journal. `surviving.py` says when it is read and written.

A later feature that learns something adds a section of its own to `sections`, small enough for 200
jobs to stay far below MAX_BYTES. A section that this version does not know is kept and written
back.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from faro_ops.journal.documents import Texts

# A reader refuses a newer major version, and keeps what it does not know of a newer minor one.
VERSION = (1, 0)
MAX_BYTES = 256 << 10  # of the document; a ConfigMap may have 1 MiB


class Unusable(ValueError):
    """A stored state that this version cannot use, and must not overwrite."""


@dataclass(frozen=True, slots=True)
class RememberedJob:
    """What is remembered about one job."""

    # The columns of `policies.authority.Authority` by name, and since when the level is in force;
    # None if the run does not earn its authority. Times are Unix times.
    authority: Mapping[str, float] | None = None
    since_s: float = 0.0
    contest: int = 0  # points for changes by other clients (faro_lib/control/guardrails.py)
    lost_utility: float = 0.0  # sum of 1 - utility over the minutes of the day so far


@dataclass(frozen=True, slots=True)
class RunState:
    """What survives a leader.

    at_s : Unix time of the last tick that it includes.
    writer : the host that wrote it, in Kubernetes the name of the pod.
    jobs : by name.
    sections : further knowledge, by the name of the feature; values are JSON types.
    version : (major, minor) of the version that wrote it.
    """

    at_s: float
    writer: str
    jobs: Mapping[str, RememberedJob]
    sections: Mapping[str, Any] = field(default_factory=dict)
    version: tuple[int, int] = VERSION

    def to_json(self) -> str:
        """The document as text; ValueError if it is too large."""
        rows = {}
        for name, one in self.jobs.items():
            row: dict[str, Any] = {"contest": one.contest, "lost_utility": _short(one.lost_utility)}
            if one.authority is not None:
                columns = {column: _short(value) for column, value in one.authority.items()}
                row |= {"authority": columns, "since_s": one.since_s}
            rows[name] = row
        text = json.dumps(
            {
                "version": ".".join(str(part) for part in self.version),
                "at_s": self.at_s,
                "writer": self.writer,
                "jobs": rows,
                "sections": self.sections,
            },
            allow_nan=False,
        )
        if len(text) > MAX_BYTES:
            raise ValueError(f"the run's state has {len(text)} bytes; at most {MAX_BYTES} are kept")
        return text

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse a document; Unusable if it is damaged, or of a newer major version."""
        try:
            content = json.loads(text)
            major, minor = (int(part) for part in content["version"].split("."))
            if major > VERSION[0]:
                raise Unusable(
                    f"has version {major}.{minor}, written by a newer Faro; this one reads "
                    f"{VERSION[0]}.x: use the newer image"
                )
            return cls(
                float(content["at_s"]),
                str(content["writer"]),
                {str(name): _record(row) for name, row in content["jobs"].items()},
                dict(content["sections"]),
                max(VERSION, (major, minor)),
            )
        except Unusable:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:100]
            raise Unusable(f"is damaged ({problem}); delete it to start without it") from None


def _record(row: Mapping[str, Any]) -> RememberedJob:
    columns = row.get("authority")
    authority = None
    if columns is not None:
        authority = {
            str(name): math.nan if value is None else float(value)
            for name, value in columns.items()
        }
    return RememberedJob(
        authority,
        float(row.get("since_s", 0.0)),
        int(row.get("contest", 0)),
        float(row.get("lost_utility", 0.0)),
    )


def _short(value: float) -> float | None:
    """A number with nine digits; None for NaN and infinity, which JSON lacks."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


class Store(Protocol):
    """Where a `RunState` survives. A failure raises OSError."""

    place: str  # where it is, for messages

    def read(self) -> RunState | None:
        """The stored state; None if none has been stored yet; Unusable if it cannot be used."""

    def write(self, state: RunState) -> None:
        """Replace the stored state."""


class JournalState:
    """The state of a run without Kubernetes, in its journal."""

    def __init__(self, journal: str | Path):
        self._texts = Texts(journal, "state")
        self.place = str(self._texts.path)

    def read(self) -> RunState | None:
        try:
            texts = self._texts.read()
        except ValueError as error:
            raise Unusable(str(error)) from None
        sound = [text.body for text in texts if text.body is not None]
        if sound:
            return RunState.from_json(sound[-1])
        if texts:
            raise Unusable("is damaged on the disk; delete it to start without it")
        return None

    def write(self, state: RunState) -> None:
        with self._texts.changing() as (texts, removed, added):
            removed += [text.n for text in texts if text.body is not None]
            added.append(state.to_json())
