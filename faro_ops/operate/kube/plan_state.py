"""The state of a controller that survives its pods, in the ConfigMap NAME-state of its FaroPlan.

It is a ConfigMap and not part of the FaroPlan's status, because every controller reads the FaroPlan
before each tick and writes its status after each tick, and this document, which may have 100 kB, is
written once a minute. The FaroPlan owns it, so both are deleted together. Only the controller's
ServiceAccount needs to write it, and its Role allows no other ConfigMap to be read or changed.

A write names the version that it replaces. A former leader, which does not know yet that another
one has written, therefore replaces nothing.
"""

from typing import Any

from faro_ops.operate.kube.client import Api, ApiError, found
from faro_ops.operate.kube.conflicts import CONFLICT
from faro_ops.operate.kube.preflight import state_name
from faro_ops.operate.kube.status import API_VERSION, KIND, PLURAL
from faro_ops.operate.memory.run_state import RunState, Unusable

KEY = "state.json"


class PlanState:
    """Reads and writes the state that belongs to one FaroPlan (a `run_state.Store`)."""

    def __init__(self, api: Api, namespace: str, plan: str):
        self._api = api
        self._plan = plan
        self._name = state_name(plan)
        self.place = f"ConfigMap '{namespace}/{self._name}'"
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._plan_path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{plan}"
        self._metadata: dict[str, Any] | None = None  # as last read or written; None: none exists

    def read(self) -> RunState | None:
        """The stored state; None if there is none; Unusable, or ApiError if it cannot be read."""
        stored = found(self._api, f"{self._path}/{self._name}")
        self._metadata = stored["metadata"] if stored else None
        text = ((stored or {}).get("data") or {}).get(KEY)
        if text is None:
            return None
        try:
            return RunState.from_json(text)
        except Unusable as error:
            raise Unusable(f"{self.place} {error}") from None

    def write(self, state: RunState) -> None:
        """Replace the stored state.

        ApiError if that fails, with status 409 if another controller has written since. The next
        write then replaces what that one has written.
        """
        text = state.to_json()
        before = self._metadata or {}
        metadata: dict[str, Any] = {"name": self._name, "ownerReferences": self._owners()}
        metadata |= {key: before[key] for key in ("labels", "annotations") if key in before}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: text}}
        try:
            if before:
                metadata["resourceVersion"] = before["resourceVersion"]
                written = self._api.send("PUT", f"{self._path}/{self._name}", body)
            else:
                written = self._api.send("POST", self._path, body)
        except ApiError as error:
            if error.status in (404, CONFLICT):
                stored = found(self._api, f"{self._path}/{self._name}")
                self._metadata = stored["metadata"] if stored else None
            raise
        self._metadata = written["metadata"]

    def _owners(self) -> list[dict[str, str]]:
        """The reference to the FaroPlan, which `Reporter` creates after the first tick."""
        before = (self._metadata or {}).get("ownerReferences")
        if before:
            return before
        plan = found(self._api, self._plan_path)
        if plan is None:
            return []
        owner = {"apiVersion": API_VERSION, "kind": KIND, "name": self._plan}
        return [owner | {"uid": plan["metadata"]["uid"]}]
