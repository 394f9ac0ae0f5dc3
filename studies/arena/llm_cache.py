"""A plugin: the HPA on the use of the engines' KV cache (`studies/arena/gauges.py`)."""

from functools import partial

from faro_lib.policies import register
from studies.arena.gauges import TUNABLE

register("HPA-cache")(partial(TUNABLE["HPA-cache"].make, goal=0.02, stabilisation_s=600.0))
