"""A plugin: Ray Serve's rule, tuned for language models (`studies/arena/gauges.py`)."""

from functools import partial

from faro_lib.policies import register
from studies.arena.gauges import TUNABLE

register("RayServe-llm")(
    partial(TUNABLE["RayServe-llm"].make, ongoing=8.0, down_after_s=900.0, up_after_s=0.0)
)
