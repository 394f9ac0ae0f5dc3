"""Routers of a pool that choose a replica when a request arrives, unlike late binding."""

from faro_lib.simulate.pools import LATE_BINDING, PoolRouter
from studies.sharing.routers.queued import EarlyBinding, LeastRecentlyUsed

# All routers of a pool with their usual parameters, by name.
_ROUTERS: tuple[PoolRouter, ...] = (LATE_BINDING, EarlyBinding(), LeastRecentlyUsed())
ROUTERS = {router.name: router for router in _ROUTERS}

__all__ = ["ROUTERS", "EarlyBinding", "LeastRecentlyUsed"]
