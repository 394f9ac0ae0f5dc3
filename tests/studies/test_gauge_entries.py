"""The arena's entries on engines' gauges have the settings that the public seed has chosen."""

import pandas as pd
import pytest
from checkouts import ROOT

from faro_lib.policies import PolicyContext, make
from faro_lib.registry import load_plugins
from faro_lib.workload.synthetic import synthetic
from studies.arena.gauges import TUNABLE

TRACES = synthetic(jobs=2, days=1, minutes=30)
# Name of an entry -> its file.
FILES = {
    "KEDA-waiting": "llm_waiting.py",
    "HPA-cache": "llm_cache.py",
    "RayServe-llm": "llm_ray_serve.py",
    "Dynamo": "llm_dynamo.py",
}


@pytest.mark.parametrize("name", FILES)
def test_an_entry_has_the_settings_that_lost_least(name):
    load_plugins([ROOT / "studies/arena" / FILES[name]])
    tried = pd.read_csv(ROOT / "data/arena/llm-10-tuning.csv")
    of_entry = tried[tried["rival"] == name]
    best = of_entry[of_entry["chosen"]].iloc[0]
    assert best["lost_utility"] == of_entry["lost_utility"].min()
    setting = {key: float(best[key]) for key in TUNABLE[name].settings}
    context = PolicyContext(TRACES.jobs, traces=TRACES)
    entry, chosen = make(name, context), TUNABLE[name].make(context, **setting)
    assert entry.name == name
    for key in TUNABLE[name].settings:
        if key != "predictor":
            assert getattr(entry, key) == getattr(chosen, key) == setting[key]
    if "predictor" in setting:
        assert type(entry.forecaster) is type(chosen.forecaster)
