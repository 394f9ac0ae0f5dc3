"""Overrides in `spec.overrides` of a FaroPlan.

With an override, people fix a job's replica count or set a factor on its forecast load.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from faro_ops.controller.overrides import Override
from faro_ops.kube.client import MERGE, Api, ApiError, found
from faro_ops.kube.status import API_VERSION, PLURAL


class PlanOverrides:
    """Reads and writes the overrides of one FaroPlan."""

    def __init__(self, api: Api, namespace: str, name: str):
        self._api = api
        self._place = f"{namespace}/{name}"
        self._path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}"

    def get(self) -> dict[str, Any] | None:
        """The FaroPlan; None if it does not exist, or if this client may not read it."""
        return found(self._api, self._path, absent=(403, 404))

    def read(self) -> tuple[Override, ...]:
        """The overrides; ValueError if an override is invalid."""
        plan = self.get() or {}
        try:
            rows = (plan.get("spec") or {}).get("overrides") or []
            return tuple(_override(row) for row in rows)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            problem = " ".join(str(error).split())[:150]
            raise ValueError(f"FaroPlan {self._place!r}: spec.overrides: {problem}") from None

    def write(self, overrides: Iterable[Override]) -> None:
        """Replace all overrides of the FaroPlan; ValueError if the request fails."""
        patch = {"spec": {"overrides": [_row(one) for one in overrides]}}
        try:
            self._api.send("PATCH", self._path, patch, kind=MERGE)
        except ApiError as error:
            missing = f"FaroPlan {self._place!r} does not exist; a controller creates it"
            raise ValueError(missing if error.status == 404 else str(error)) from None


def _override(row: Mapping[str, Any]) -> Override:
    from_s = _unix_time(row.get("from")) or 0.0
    until_s = _unix_time(row.get("until"))
    load = None if row.get("load") is None else float(row["load"])
    by = row.get("by", "FaroPlan")
    return Override(row["job"], by, from_s, until_s, row.get("replicas"), load)


def _unix_time(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _row(one: Override) -> dict[str, Any]:
    row = {"job": one.job, "by": one.by, "replicas": one.replicas, "load": one.load}
    for name, time_s in (("from", one.from_s), ("until", one.until_s)):
        if time_s:
            row[name] = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {name: value for name, value in row.items() if value is not None}
