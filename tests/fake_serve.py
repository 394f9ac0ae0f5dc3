"""A Ray that takes a declarative configuration, as KubeRay submits it; nothing runs."""

from __future__ import annotations

from live_things import FakeRay

APPLICATIONS = "/api/serve/applications/"
STATS = "faro-statistics"


class DeclaredRay(FakeRay):
    """A PUT replaces the applications and resets their replica counts to those in the configuration.

    The statistics and the accepted shares survive a PUT; nothing survives a crash of the head.
    """

    def __init__(self, token: str | None = None):
        super().__init__({}, token=token)
        self.puts = 0

    def answer(self, method, path, body):
        if path.startswith(f"/{STATS}") and self.puts == 0:
            return 404, {}
        if (method, path) == ("PUT", APPLICATIONS):
            self.puts += 1
            self.targets = {one["name"]: one["args"].get("replicas", 1) for one in body["applications"]}
            self.external = {one["name"]: one.get("external_scaler_enabled", False) for one in body["applications"]}
        if path.endswith("/scale") and not self.external.get(path.split("/")[4]):
            return 412, {}
        return super().answer(method, path, body)

    def counts(self) -> dict[str, int]:
        """Replicas by application, the stats endpoint excluded."""
        return {name: count for name, count in self.targets.items() if name != STATS}

    def crash(self) -> None:
        self.targets, self.puts = {}, 0
        self.stats.__init__()
