"""The routers of this process, which a gateway asks for the running replicas of its pool.

Ray makes the router of a handle and calls its `initialize_state`, where it registers here.
"""

from typing import Any
from weakref import WeakValueDictionary

ROUTERS: WeakValueDictionary[str, Any] = WeakValueDictionary()  # by application


def running_replicas(application: str) -> dict[str, tuple[int, frozenset[str]]]:
    """What the router in this process knows of an application's running replicas.

    By replica: the version of what it holds, and the jobs whose models it holds. It is {} before
    the first request.
    """
    router = ROUTERS.get(application)
    if router is None:
        return {}
    known = {}
    for one in list(router.curr_replicas.values()):
        stats = one.routing_stats
        version, holds = int(stats.get("version", -1)), frozenset(stats.get("holds", ()))
        known[one.replica_id.unique_id] = version, holds
    return known
