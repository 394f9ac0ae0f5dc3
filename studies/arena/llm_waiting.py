"""A plugin: KEDA on the waiting requests of language-model engines (`studies/arena/gauges.py`)."""

from functools import partial

from faro_lib.policies import register
from studies.arena.gauges import TUNABLE

register("KEDA-waiting")(partial(TUNABLE["KEDA-waiting"].make, goal=0.5, stabilisation_s=3600.0))
