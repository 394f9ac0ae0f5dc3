"""The arena, a benchmark of autoscalers of many services.

It has versioned scenarios, scores and a Gymnasium environment. The environment `faro/Cluster-v0` is
registered if gymnasium is installed; scoring does not need it.
"""

from importlib.util import find_spec

if find_spec("gymnasium"):
    import gymnasium

    gymnasium.register("faro/Cluster-v0", "faro_ops.advise.arena.environment:ClusterEnv")
