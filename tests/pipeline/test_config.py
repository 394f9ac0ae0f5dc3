"""The configuration: what is accepted, and the message for each mistake."""

import json
import re
from pathlib import Path

import pytest
import yaml
from faro_pipeline import settings as config
from faro_pipeline.derived import PARAMETERS, or_middle, scale_wanted, sensitivity_wanted, stem_of
from faro_pipeline.settings import Config, load
from jsonschema import Draft202012Validator

from faro_lib.policies import FACTORIES
from studies.paper import cilantro, published

ROOT = Path(__file__).resolve().parents[2]


def test_the_default_file_is_what_the_schema_writes():
    assert (ROOT / "config" / "default.yaml").read_text() == config.default_yaml()


def test_the_default_file_says_what_the_schema_assumes():
    assert load(yaml.safe_load(config.default_yaml())) == Config()


def test_the_json_schema_is_what_the_schema_writes():
    written = (ROOT / "workflow" / "schemas" / "config.schema.json").read_text()
    assert written == config.schema_json()


SCHEMA = Draft202012Validator(json.loads(config.schema_json()))


@pytest.mark.parametrize(
    "overlay",
    [*sorted((ROOT / "config").glob("*.yaml")), ROOT / ".test" / "config.yaml"],
    ids=lambda path: path.stem,
)
def test_the_json_schema_accepts_every_file_of_settings(overlay):
    SCHEMA.validate(yaml.safe_load(overlay.read_text()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"trails": 5},
        {"synthetic": {"sead": 5}},
        {"policies": []},
        {"policies": ["AIAD", "AIAD"]},
        {"capacities": [0]},
        {"capacities": 36},
        {"trials": 1.5},
        {"backend": "kindd"},
        {"scale": {"clusters": [[20]]}},
        {"sensitivity": {"interval_s": [60, 45]}},
    ],
    ids=str,
)
def test_the_json_schema_refuses_what_the_settings_refuse(wrong):
    assert not SCHEMA.is_valid(wrong)
    with pytest.raises(ValueError):
        load(wrong)


def test_the_reference_is_what_the_schema_writes():
    assert (ROOT / "docs" / "configuration.md").read_text() == config.reference_md()


def test_every_key_of_the_default_file_is_explained():
    lines = [line.strip() for line in config.default_yaml().splitlines()]
    keys = [number for number, line in enumerate(lines) if re.match(r"\w+:", line)]
    assert len(keys) > 10
    assert all(lines[number - 1].startswith("# ") for number in keys)


@pytest.mark.parametrize(
    "overlay", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_file_in_config_is_accepted(overlay):
    load(yaml.safe_load(overlay.read_text()))


def test_the_full_overlay_names_every_policy_of_the_library_and_of_the_papers_edition():
    overlay = load(yaml.safe_load((ROOT / "config" / "full.yaml").read_text()))
    assert {ROOT / plugin for plugin in overlay.plugins} == {
        Path(module.__file__) for module in (cilantro, published)
    }
    makers = {name: getattr(maker, "func", maker) for name, maker in FACTORIES.items()}
    ours = {
        name
        for name, maker in makers.items()
        if maker.__module__.startswith(("faro_lib.", "studies.paper."))
    }
    assert set(overlay.policies) == ours


def test_results_are_in_a_folder_named_after_the_workload_file():
    mine = load({"workload": "some/where/my.csv", "capacities": [4]})
    assert stem_of(mine.workload) == "my"
    assert stem_of(load({}).workload) == "synthetic"


MISTAKES = [
    ({"trails": 5}, "unknown key 'trails'; did you mean 'trials'?"),
    ({"synthetic": {"sead": 5}}, "unknown key 'synthetic.sead'; did you mean 'seed'?"),
    ({"zzz": 5}, "unknown key 'zzz'; accepted: workload, jobs, "),
    (
        {"workload": "faro-10job"},
        "workload='faro-10job' is neither a workload nor a .csv file; did you mean 'faro-10jobs'?",
    ),
    ({"workload": "synthetic.csv"}, "rename the file"),
    (
        {"jobs": "jobs.txt"},
        "jobs='jobs.txt' is not a table of jobs; accepted: the path of a .csv or .yaml file",
    ),
    ({"policies": ["AIAD", "AIAD"]}, "has 'AIAD' more than once"),
    ({"policies": []}, "policies=[] "),
    ({"capacities": [36, 9]}, "capacities: 9 replicas are fewer than the 10 jobs of synthetic"),
    (
        {"workload": "faro-10jobs", "capacities": [9]},
        "capacities: 9 replicas are fewer than the 10 jobs of faro-10jobs",
    ),
    ({"capacities": [0]}, "capacities.0=0 must be greater than 0"),
    ({"capacities": 36}, "capacities=36 must be a list"),
    ({"trials": 0}, "trials=0 must be a whole number >= 1 and <= 10000"),
    ({"trials": 1.5}, "trials=1.5 must be a whole number >= 1"),
    ({"minutes": "all"}, "minutes='all' must be a whole number >= 1"),
    (
        {"ablation": {"capacity": [32]}},
        "unknown key 'ablation.capacity'; did you mean 'capacities'?",
    ),
    (
        {"ablation": {"objective": "Summ"}},
        "ablation.objective='Summ' is unknown; did you mean 'Sum'?",
    ),
    ({"scale": {"curve": [20, 20]}}, "has 20 more than once"),
    (
        {"scale": {"clusters": [[20, 10]]}},
        "has [20, 10]; a cluster needs at least 1 job and 1 replica per job",
    ),
    ({"scale": {"policies": ["AIAD", "AIAD"]}}, "has 'AIAD' more than once"),
    (
        {"sensitivity": {"forecast_error": [-0.1]}},
        "sensitivity.forecast_error.0=-0.1 must be greater than or equal to 0",
    ),
    ({"sensitivity": {"interval_s": [0]}}, "sensitivity.interval_s.0=0 must be greater than 0"),
    (
        {"sensitivity": {"interval_s": [60, 45]}},
        "sensitivity.interval_s.1=45 must be a multiple of 10",
    ),
    (
        {"sensitivity": {"policies": ["AIAD"]}},
        "sensitivity.policies=['AIAD'] list should have at least 2 items",
    ),
    ({"live": {"scale": 7}}, "live.scale=7 must divide 60: 1, 2, 3, 4, 5, 6, 10, ..."),
    ({"live": {"tick_s": 10}}, "live.tick_s=10 must be a number >= 30"),
    (
        {"backend": "kindd"},
        "backend='kindd' is unknown; did you mean 'kind'?",
    ),
]


@pytest.mark.parametrize(("mapping", "message"), MISTAKES, ids=lambda part: str(part)[:40])
def test_a_mistake_is_one_line_with_key_value_and_what_is_accepted(mapping, message):
    with pytest.raises(ValueError) as error:
        load(mapping)
    assert message in str(error.value)
    assert str(error.value).startswith("config: ")
    assert "\n" not in str(error.value)


def test_a_stage_without_capacities_takes_the_middle_one_and_an_empty_list_skips_it():
    small = load({"capacities": [16, 12, 14]})
    assert or_middle(small, small.ablation.capacities) == [14]
    assert or_middle(small, []) == []


def test_a_stage_with_every_part_switched_off_is_off():
    parts = {"mixed": [], "clusters": [], "largest": [], "curve": []}
    assert not scale_wanted(load({"scale": parts}).scale)
    assert scale_wanted(load({"scale": parts | {"curve": [20]}}).scale)
    none: dict[str, list[float]] = {name: [] for name in PARAMETERS}
    assert not sensitivity_wanted(load({"sensitivity": none}).sensitivity)
    assert sensitivity_wanted(load({"sensitivity": none | {"cold_start_s": [5]}}).sensitivity)


def test_two_mistakes_are_two_lines():
    with pytest.raises(ValueError) as error:
        load({"trails": 5, "trials": 0})
    assert len(str(error.value).splitlines()) == 2
