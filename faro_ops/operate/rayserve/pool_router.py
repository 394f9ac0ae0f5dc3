"""The router of a gateway's handle to its pool: which replica Ray Serve sends a request to.

It is imported only where Ray runs.
"""

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class ByModel(RequestRouter):
    """Sends a request to the replica that it names, or else to one that holds its model.

    If the named replica no longer runs, any other may get the request. It serves the request if it
    holds the model, and otherwise says that it does not.
    """

    def initialize_state(self, **kwargs: Any) -> None:
        # Ray copies this class with the globals of its module, but an import finds the real one.
        from faro_ops.operate.rayserve.handle_routers import ROUTERS

        ROUTERS[self.app_name] = self

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        if pending_request is None:
            return [candidate_replicas]
        sent = pending_request.args[0]
        named = [one for one in candidate_replicas if one.replica_id.unique_id == sent.replica]
        if named:
            return [named]
        holding = [
            one for one in candidate_replicas if sent.job in one.routing_stats.get("holds", ())
        ]
        available = self.select_available_replicas(holding)
        # Among those with room, Ray takes the one with the fewest requests. Without room, it asks
        # again later; without a holder, the replica says so.
        return [available or holding or candidate_replicas]
