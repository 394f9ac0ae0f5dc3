"""Overrides in `spec.overrides` of a FaroPlan.

With an override, people fix a job's replica count, set a factor on its forecast load, or freeze all
jobs.

If a FaroPlan is deleted, its orders stay in force in each controller that has read them. One of
these writes them into the FaroPlan that the leader creates again.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from faro_ops.errors import one_line
from faro_ops.operate.kube.client import MERGE, Api, ApiError, found
from faro_ops.operate.kube.conflicts import CONFLICT, after_conflicts
from faro_ops.operate.kube.status import API_VERSION, PLURAL
from faro_ops.operate.memory.override_store import Order, changed_rows, orders_in
from faro_ops.operate.memory.overrides import Orders, Override

LOG = logging.getLogger(__name__)
# Fields of an order that a row has as they are, and those that it has as a date and time.
WRITTEN = ("job", "by", "replicas", "load")
TIMES = ("from", "until")


class PlanOverrides:
    """Reads and changes the orders of one FaroPlan.

    restores : whether `read` writes the orders of a deleted FaroPlan into the one that a controller
        has created again.
    """

    def __init__(self, api: Api, namespace: str, name: str, restores: bool = False):
        self._api = api
        self._place = f"{namespace}/{name}"
        self._path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}"
        self._restores = restores
        # Of the FaroPlan whose orders were last read.
        self._uid = ""
        self._rows: list[Any] = []

    def get(self) -> dict[str, Any] | None:
        """The FaroPlan; None if it does not exist. Raises ApiError if it cannot be read."""
        return found(self._api, self._path)

    def read(self) -> Orders | None:
        """The orders; None if neither a FaroPlan nor orders are known.

        ApiError or ValueError if they cannot be read. Orders of a FaroPlan that was deleted stay in
        force, also if a controller has created it again without them.
        """
        plan = self.get()
        if plan is None:
            return orders_in(self._rows, of_plan_row) if self._rows else None
        rows = self._rows_of(plan)
        uid = str(plan.get("metadata", {}).get("uid", ""))
        if rows is None and self._uid and uid != self._uid:
            rows = self._restored(plan)
        self._uid, self._rows = uid, rows or []
        return orders_in(self._rows, of_plan_row)

    def _restored(self, plan: Mapping[str, Any]) -> list[Any]:
        """Write the rows of a deleted FaroPlan into `plan`, which has none; ValueError if not.

        An empty list is written, too. It tells other controllers, which may know older orders, that
        there are none.
        """
        problem = "it was deleted and created again without its orders"
        advice = "order them again, or end them with `faro thaw` or `faro set --clear`"
        if not self._restores:
            if not self._rows:
                return []
            raise ValueError(f"FaroPlan {self._place!r}: {problem}; {advice}")
        try:
            self._write(plan, self._rows)
        except ApiError as error:
            raise ValueError(f"FaroPlan {self._place!r}: {problem} ({error}); {advice}") from None
        if self._rows:
            count = f"{len(self._rows)} order{'s' if len(self._rows) > 1 else ''}"
            LOG.warning("FaroPlan %r: it was deleted; %s written back", self._place, count)
        return self._rows

    def _write(self, plan: Mapping[str, Any], rows: list[Any]) -> None:
        """Replace the rows; ApiError with status CONFLICT if `plan` has changed since."""
        version = plan.get("metadata", {}).get("resourceVersion")
        patch = {"metadata": {"resourceVersion": version}, "spec": {"overrides": rows}}
        self._api.send("PATCH", self._path, patch, kind=MERGE)

    def change(
        self, removes: Callable[[Order], bool] = lambda order: False, adds: Override | None = None
    ) -> list[Override]:
        """Remove and add orders; return the removed ones.

        The write carries the resourceVersion that was read. If the FaroPlan has changed meanwhile,
        it is read again, so that no order of another writer is lost.
        """

        def write(plan: Mapping[str, Any]) -> list[Override]:
            rows, removed = changed_rows(self._rows_of(plan) or [], of_plan_row, removes)
            if adds:
                rows.append(plan_row(adds))
            self._write(plan, rows)
            return removed

        try:
            return after_conflicts(write, self._existing(), self._existing, "orders can be written")
        except ApiError as error:
            if error.status != CONFLICT:
                raise
            raise ValueError(f"FaroPlan {self._place!r}: {error}; try again") from None

    def _existing(self) -> dict[str, Any]:
        plan = self.get()
        if plan is None:
            problem = "does not exist; a controller creates it"
            raise ValueError(f"FaroPlan {self._place!r} {problem}")
        return plan

    def _rows_of(self, plan: Mapping[str, Any]) -> list[Any] | None:
        """The rows of `spec.overrides`; None if the field is missing."""
        spec = plan.get("spec")
        rows = spec.get("overrides") if isinstance(spec, Mapping) else None
        if rows is not None and not isinstance(rows, list):
            problem = one_line(f"spec.overrides={rows!r} must be a list", 200)
            raise ValueError(f"FaroPlan {self._place!r}: {problem}")
        return rows


def of_plan_row(row: Mapping[str, Any]) -> Override:
    """The order in a row of `spec.overrides`; ValueError if it is invalid."""
    order = {"by": "FaroPlan"} | {key: row[key] for key in WRITTEN if row.get(key) is not None}
    for name in TIMES:
        if row.get(name) is not None:
            order[f"{name}_s"] = _unix_time(row, name)
    return Override.of(order)


def _unix_time(row: Mapping[str, Any], name: str) -> float:
    text = row[name]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        accepted = "must be a date and time such as 2026-12-01T14:00:00Z"
        raise ValueError(f"job {row['job']!r}: {name}={text!r} {accepted}") from None


def plan_row(one: Override) -> dict[str, Any]:
    """The row of `spec.overrides` for an order."""
    row = {name: getattr(one, name) for name in WRITTEN}
    for name in TIMES:
        time_s = getattr(one, f"{name}_s")
        if time_s:
            row[name] = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {name: value for name, value in row.items() if value is not None}
