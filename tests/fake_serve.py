"""A Ray whose applications come by a declarative configuration, as KubeRay submits it; nothing runs."""

from __future__ import annotations

from live_things import FakeRay

APPLICATIONS = "/api/serve/applications/"
WINDOW = "faro-statistics"


class DeclaredRay(FakeRay):
    """A configuration that is put says which applications there are, and resets each one's count to what it says.

    What replicas reported, and which share of requests they accept, outlives that; a crash of the head nothing.
    """

    def __init__(self, token: str | None = None):
        super().__init__({}, token=token)
        self.puts = 0

    def answer(self, method, path, body):
        if path.startswith(f"/{WINDOW}") and self.puts == 0:
            return 404, {}
        if (method, path) == ("PUT", APPLICATIONS):
            self.puts += 1
            self.targets = {one["name"]: one["args"].get("replicas", 1) for one in body["applications"]}
            self.external = {one["name"]: one.get("external_scaler_enabled", False) for one in body["applications"]}
        if path.endswith("/scale") and not self.external.get(path.split("/")[4]):
            return 412, {}
        return super().answer(method, path, body)

    def counts(self) -> dict[str, int]:
        """Replicas by application, the window aside."""
        return {name: count for name, count in self.targets.items() if name != WINDOW}

    def crash(self) -> None:
        self.targets, self.puts = {}, 0
        self.board.__init__()
