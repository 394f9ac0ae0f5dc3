"""The configuration: what is accepted, and what a mistake is told."""

import re
from pathlib import Path

import pytest
import yaml

from faro_lib import config
from faro_lib.config import Config, load

ROOT = Path(__file__).parent.parent


def test_the_default_file_is_what_the_schema_writes():
    assert (ROOT / "config" / "default.yaml").read_text() == config.default_yaml()


def test_the_default_file_says_what_the_schema_assumes():
    assert load(yaml.safe_load(config.default_yaml())) == Config()


def test_the_reference_is_what_the_schema_writes():
    from faro_lib.pipeline.reference import configuration_md

    assert (ROOT / "docs" / "configuration.md").read_text() == configuration_md()


def test_every_key_of_the_default_file_is_explained():
    lines = [line.strip() for line in config.default_yaml().splitlines()]
    keys = [number for number, line in enumerate(lines) if re.match(r"\w+:", line)]
    assert len(keys) > 10
    assert all(lines[number - 1].startswith("# ") for number in keys)


@pytest.mark.parametrize("overlay", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_in_config_is_accepted(overlay):
    load(yaml.safe_load(overlay.read_text()))


def test_the_full_overlay_names_every_policy():
    from faro_lib.policies import FACTORIES

    ours = {name for name, maker in FACTORIES.items() if maker.__module__.startswith("faro_lib")}
    assert set(load(yaml.safe_load((ROOT / "config" / "full.yaml").read_text())).policies) == ours


def test_results_lie_under_the_stem_of_the_readers_file():
    assert load({"workload": "some/where/my.csv", "capacities": [4]}).stem == "my"
    assert load({}).stem == "synthetic"


MISTAKES = [
    ({"trails": 5}, "unknown key 'trails'; did you mean 'trials'?"),
    ({"synthetic": {"sead": 5}}, "unknown key 'synthetic.sead'; did you mean 'seed'?"),
    ({"zzz": 5}, "unknown key 'zzz'; accepted: workload, jobs, "),
    ({"workload": "faro-10job"}, "workload='faro-10job' is unknown; did you mean 'faro-10jobs'?"),
    ({"workload": "synthetic.csv"}, "rename the file"),
    ({"jobs": "jobs.txt"}, "jobs='jobs.txt' is not a table of jobs; accepted: the path of a .csv or .yaml file"),
    ({"policies": ["AIAD", "AIAD"]}, "has 'AIAD' more than once"),
    ({"policies": []}, "policies=[] "),
    ({"capacities": [36, 9]}, "sizes: 9 replicas are fewer than the 10 jobs of synthetic"),
    ({"workload": "faro-10jobs", "capacities": [9]}, "sizes: 9 replicas are fewer than the 10 jobs of faro-10jobs"),
    ({"capacities": [0]}, "capacities=[0] has 0; a cluster has at least 1 replica"),
    ({"capacities": 36}, "sizes=36 should be a valid list"),
    ({"trials": 0}, "trials=0 should be greater than or equal to 1"),
    ({"trials": 1.5}, "trials=1.5 should be a valid integer"),
    ({"minutes": "all"}, "minutes='all' should be a valid integer"),
    ({"ablation": {"size": [32]}}, "unknown key 'ablation.size'; did you mean 'sizes'?"),
    ({"ablation": {"capacities": [9]}}, "ablation.capacities: 9 replicas are fewer than the 10 jobs of synthetic"),
    ({"scale": {"curve": [20, 20]}}, "has 20 more than once"),
    ({"scale": {"clusters": [[20, 10]]}}, "has [20, 10]; a cluster has at least 1 job and 1 replica for each"),
    ({"scale": {"policies": ["AIAD", "AIAD"]}}, "has 'AIAD' more than once"),
    ({"sensitivity": {"forecast_error": [-0.1]}}, "has -0.1; accepted: numbers >= 0"),
    ({"sensitivity": {"interval_s": [0]}}, "has 0; accepted: numbers > 0"),
    ({"sensitivity": {"policies": ["AIAD"]}}, "sensitivity.policies=['AIAD'] list should have at least 2 items"),
    ({"live": {"scale": 7}}, "live.scale=7 must divide 60: 1, 2, 3, 4, 5, 6, 10, ..."),
    ({"live": {"tick_s": 10}}, "live.tick_s=10 should be greater than or equal to 30"),
    ({"live": {"jobs": [0, 10]}}, "live.jobs has 10; synthetic has jobs 0 to 9"),
    ({"live": {"jobs": [0, 1], "replicas": 1}}, "live.replicas=1 are fewer than its 2 jobs"),
    ({"backend": "kindd"}, "backend='kindd' should be 'none', 'local', 'kind' or 'kubernetes'"),
]


@pytest.mark.parametrize(("mapping", "told"), MISTAKES, ids=lambda part: str(part)[:40])
def test_a_mistake_is_told_in_one_line_with_the_key_the_value_and_what_is_accepted(mapping, told):
    with pytest.raises(ValueError) as error:
        load(mapping)
    assert told in str(error.value)
    assert str(error.value).startswith("config: ")
    assert "\n" not in str(error.value)


def test_a_stage_without_sizes_of_its_own_takes_the_middle_one_and_an_empty_list_leaves_it_out():
    small = load({"capacities": [16, 12, 14]})
    assert small.or_middle(small.ablation.capacities) == [14]
    assert small.or_middle([]) == []


def test_every_part_of_a_stage_can_be_switched_off_and_then_there_is_no_stage():
    parts = {"mixed": [], "clusters": [], "largest": [], "curve": []}
    assert not load({"scale": parts}).scale.wanted
    assert load({"scale": parts | {"curve": [20]}}).scale.wanted
    names = ["cold_start_s", "slo_factor", "forecast_error", "interval_s", "scv_factor"]
    circumstances: dict[str, list[float]] = {name: [] for name in names}
    assert not load({"sensitivity": circumstances}).sensitivity.wanted
    assert load({"sensitivity": circumstances | {"cold_start_s": [5]}}).sensitivity.wanted


def test_two_mistakes_are_two_lines():
    with pytest.raises(ValueError) as error:
        load({"trails": 5, "trials": 0})
    assert len(str(error.value).splitlines()) == 2
