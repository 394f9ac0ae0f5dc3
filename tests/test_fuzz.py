"""Readers of users' files on random input: a result, or an error of one short line, and never a traceback.

`make test-all` runs a minute of it; `make fuzz` more.
"""

import copy
import json
import os
from functools import partial

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from live_things import JOBS as TWO_JOBS
from live_things import FakeRay, Wanting
from test_controller_lifecycle import Still

from faro_lib import config
from faro_lib.control import journal, run
from faro_lib.control.clock import Clock
from faro_lib.control.loop import observed
from faro_lib.control.overrides import read_overrides
from faro_lib.errors import message_of, one_line
from faro_lib.http import HttpClient
from faro_lib.kube.plan_overrides import PlanOverrides
from faro_lib.rayserve.cluster import RayServeCluster
from faro_lib.rayserve.spec import serve_specs
from faro_lib.workload.prometheus import read_prometheus
from faro_lib.workload.readers import COLUMNS, read_csv, read_jobs

pytestmark = pytest.mark.slow

INPUTS = int(os.environ.get("FARO_FUZZ", "1000"))
fuzz = settings(max_examples=INPUTS, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats(), st.sampled_from([0, 1, 2, 999_999_999, 1e30]))
CELLS = st.one_of(NUMBERS.map(str), st.text(max_size=8), st.sampled_from(["", "a", "b", "nan", "\x1b[31m", '"']))
ROWS = st.lists(st.lists(CELLS, max_size=5).map(",".join), max_size=8)
HEADERS = st.sampled_from(
    ["minute,job,requests", "day,minute,job,requests", "minute,job", "", "job,slo_s,min_replicas"]
)
CSV = st.builds(lambda header, rows: "\n".join([header, *rows]).encode(errors="replace"), HEADERS, ROWS)
VALUES = st.recursive(
    st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=8), st.dates()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
JOBS = st.lists(st.dictionaries(st.one_of(st.sampled_from(list(COLUMNS)), st.text(max_size=4)), VALUES), max_size=3)
YAML = st.one_of(JOBS, VALUES).map(lambda content: yaml.safe_dump(content, allow_unicode=True).encode(errors="replace"))
FRAGMENTS = st.lists(
    st.sampled_from(["- ", "job: ", "a", "&x ", "*x", "!t ", "[", "{", ": ", "\n", "  ", "'", "1e9", "|"])
)
BROKEN = FRAGMENTS.map(lambda parts: "".join(parts).encode())


def result_or_one_line(read, *arguments) -> None:
    try:
        read(*arguments)
        return
    except (ValueError, OSError) as error:
        lines = [one_line(line) for line in str(message_of(error)).splitlines()]
    assert lines
    assert all(len(line) <= 300 and line.isprintable() for line in lines)


@fuzz
@given(CSV | st.binary(max_size=200))
@example(b"minute,job,requests\n0,a,5\n999999999,a,5\n")
def test_counts(tmp_path, content):
    (tmp_path / "counts.csv").write_bytes(content)
    result_or_one_line(read_csv, tmp_path / "counts.csv")


@fuzz
@given(YAML | BROKEN | st.binary(max_size=200))
def test_a_yaml_table_of_jobs(tmp_path, content):
    (tmp_path / "jobs.yaml").write_bytes(content)
    result_or_one_line(read_jobs, tmp_path / "jobs.yaml")


@fuzz
@given(CSV | st.binary(max_size=200))
def test_a_csv_table_of_jobs(tmp_path, content):
    (tmp_path / "jobs.csv").write_bytes(content)
    result_or_one_line(read_jobs, tmp_path / "jobs.csv")


@fuzz
@given(st.dictionaries(st.sampled_from(list(config.Config.model_fields)) | st.text(max_size=4), VALUES, max_size=3))
def test_a_configuration(mapping):
    result_or_one_line(config.load, mapping)


# --- what other programs answer ---------------------------------------------------------------------------------------


def replaced(thing, place, value):
    """A copy of nested lists and dictionaries with `value` at the n-th place, counted over all places."""
    places = []

    def walk(one):
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, inner in items:
            places.append((one, key))
            walk(inner)

    thing = copy.deepcopy(thing)
    walk(thing)
    holder, key = places[place % len(places)]
    holder[key] = value
    return thing


PLACES = st.integers(0, 10**6)
JSON = VALUES.filter(lambda value: "datetime" not in repr(value))
OVERRIDES = [
    {"job": "a", "by": "me", "replicas": 2, "from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"},
    {"job": "b", "load": 2.0},
]


FILE_OF_SET = [{"job": "a", "by": "me", "from_s": 1.0, "until_s": 2.0, "replicas": 2, "load": None}]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "j"
    run(Still(), Wanting([1, 1]), TWO_JOBS, journal=path, until_s=25.0)
    return [json.loads(line) for line in path.read_text().splitlines()]


@fuzz
@given(PLACES, JSON)
def test_a_journal(lines, tmp_path, place, value):
    changed = replaced(lines, place, value)
    (tmp_path / "j").write_text("".join(json.dumps(line) + "\n" for line in changed))
    result_or_one_line(journal.read, tmp_path / "j")


@fuzz
@given(JSON | st.tuples(PLACES, JSON).map(lambda pair: replaced(OVERRIDES, *pair)))
def test_the_overrides_of_a_faro_plan(rows):
    class Api:
        def get(self, path):
            return {"spec": {"overrides": rows}}

    result_or_one_line(PlanOverrides(Api(), "faro", "faro").read)


@fuzz
@given(JSON | st.tuples(PLACES, JSON).map(lambda pair: replaced(FILE_OF_SET, *pair)))
def test_the_file_of_faro_set(tmp_path, rows):
    (tmp_path / "o.json").write_text(json.dumps(rows))
    result_or_one_line(read_overrides, tmp_path / "o.json")


ANSWER = {"status": "success", "data": {"result": [{"metric": {"job": "a"}, "values": [[60, "1"], [120, "2"]]}]}}


@fuzz
@given(JSON | st.tuples(PLACES, JSON).map(lambda pair: replaced(ANSWER, *pair)))
def test_an_answer_of_prometheus(answer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HttpClient, "request", lambda *_, **__: answer)
        query = partial(read_prometheus, "http://localhost:9090", "up", minutes=2, end_s=180.0)
        result_or_one_line(query)


@fuzz
@given(st.sampled_from(["a", "b"]), PLACES, JSON)
def test_an_answer_of_ray_makes_at_most_a_tick_without_observation(name, place, value):
    ray = FakeRay({"a": 1, "b": 1})
    answers = {"/api/serve/applications/": ray.answer("GET", "/api/serve/applications/", None)[1]}
    answers["/api/v0/nodes"] = ray.answer("GET", "/api/v0/nodes", None)[1]
    path = list(answers)[name == "b"]
    answers[path] = replaced(answers[path], place, value)
    failures = []
    server = HttpClient("http://localhost:8265")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            HttpClient, "request",
            lambda self, method, path, *_, **__: answers.get(path.split("?")[0], {"now_s": 0, "jobs": {}}),
        )  # fmt: skip
        cluster = RayServeCluster(TWO_JOBS, serve_specs(TWO_JOBS), server, server, Clock.starting_now())
        observed(cluster, 10.0, None, lambda reason, line: failures.append(line))
    assert all("\n" not in line for line in failures)
