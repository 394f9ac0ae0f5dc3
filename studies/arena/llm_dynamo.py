"""A plugin: our reading of Dynamo's planner, for language models (`studies/arena/gauges.py`)."""

from functools import partial

from faro_lib.policies import register
from studies.arena.gauges import TUNABLE

register("Dynamo")(partial(TUNABLE["Dynamo"].make, load=0.3, interval_s=180.0, predictor=2.0))
