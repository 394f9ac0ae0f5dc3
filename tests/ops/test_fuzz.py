"""Readers of users' files on random input: a result or an error of one line, never a traceback.

`make test-all` runs a minute of it; `make fuzz` more.
"""

import copy
import json
import math
import os
from functools import partial

import kube_things
import pytest
import yaml
from faro_pipeline import settings as config
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from journal_things import exported
from kube_api import KubeApi
from live_things import JOBS as TWO_JOBS
from live_things import FakeRay, Still, Wanting

from faro_lib.workload.readers import READ_COLUMNS, read_csv, read_jobs
from faro_ops.advise.sources.serving_history import serving_from_csv
from faro_ops.errors import message_of, one_line
from faro_ops.http import HttpClient
from faro_ops.journal import reading
from faro_ops.operate.clock import Clock
from faro_ops.operate.kube.capacity import Shape, capacity, cores_of_workers, placement
from faro_ops.operate.kube.plan_overrides import PlanOverrides
from faro_ops.operate.kube.rayservice import serving_cluster, why_not_ready
from faro_ops.operate.loop.loop import observed, run
from faro_ops.operate.memory.override_store import JournalOverrides
from faro_ops.operate.rayserve.cluster import RayServeCluster
from faro_ops.operate.rayserve.spec import serve_specs
from faro_ops.prometheus import read_prometheus

pytestmark = pytest.mark.slow

INPUTS = int(os.environ.get("FARO_FUZZ", "1000"))
fuzz = settings(max_examples=INPUTS, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20), st.floats(), st.sampled_from([0, 1, 2, 999_999_999, 1e30])
)
CELLS = st.one_of(
    NUMBERS.map(str), st.text(max_size=8), st.sampled_from(["", "a", "b", "nan", "\x1b[31m", '"'])
)
ROWS = st.lists(st.lists(CELLS, max_size=5).map(",".join), max_size=8)
HEADERS = st.sampled_from(
    ["minute,job,requests", "day,minute,job,requests", "minute,job", "", "job,slo_s,min_replicas"]
)
CSV = st.builds(
    lambda header, rows: "\n".join([header, *rows]).encode(errors="replace"), HEADERS, ROWS
)
VALUES = st.recursive(
    st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=8), st.dates()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
JOBS = st.lists(
    st.dictionaries(st.one_of(st.sampled_from(list(READ_COLUMNS)), st.text(max_size=4)), VALUES),
    max_size=3,
)
YAML = st.one_of(JOBS, VALUES).map(
    lambda content: yaml.safe_dump(content, allow_unicode=True).encode(errors="replace")
)
FRAGMENTS = st.lists(
    st.sampled_from(
        ["- ", "job: ", "a", "&x ", "*x", "!t ", "[", "{", ": ", "\n", "  ", "'", "1e9", "|"]
    )
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


RECORDS = "minute,job,requests,replicas,latency_p99_s,latency_mean_s"


@fuzz
@given(ROWS.map(lambda rows: "\n".join([RECORDS, *rows]).encode(errors="replace")))
@example(f"{RECORDS}\n0,a,5,1,,\n1,a,5,,0.1,0.1\n".encode())
def test_records_of_an_audit(tmp_path, content):
    (tmp_path / "records.csv").write_bytes(content)
    (tmp_path / "jobs.yaml").write_text("[{job: a}, {job: b}]")
    result_or_one_line(serving_from_csv, tmp_path / "records.csv", tmp_path / "jobs.yaml")


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
@given(
    st.dictionaries(
        st.sampled_from(list(config.Config.model_fields)) | st.text(max_size=4), VALUES, max_size=3
    )
)
def test_a_configuration(mapping):
    result_or_one_line(config.load, mapping)


# --- what other programs answer -------------------------------------------------------------------


def replaced(thing, place, value):
    """A copy of nested lists and dictionaries with `value` at the n-th of all places."""
    places = []

    def walk(one):
        items = (
            one.items()
            if isinstance(one, dict)
            else enumerate(one)
            if isinstance(one, list)
            else ()
        )
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
    {
        "job": "a",
        "by": "me",
        "replicas": 2,
        "from": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
    },
    {"job": "b", "load": 2.0},
]


FILE_OF_SET = [{"job": "a", "by": "me", "from_s": 1.0, "until_s": 2.0, "replicas": 2, "load": None}]


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "j"
    run(Still(), Wanting([1, 1]), TWO_JOBS, journal=path, until_s=25.0)
    return [json.loads(line) for line in exported(path)]


@fuzz
@given(PLACES, JSON)
def test_a_journal(lines, tmp_path, place, value):
    changed = replaced(lines, place, value)
    (tmp_path / "j").write_text("".join(json.dumps(line) + "\n" for line in changed))
    result_or_one_line(reading.read, tmp_path / "j")


@fuzz
@given(JSON | st.tuples(PLACES, JSON).map(lambda pair: replaced(OVERRIDES, *pair)))
def test_the_overrides_of_a_faro_plan(rows):
    api = KubeApi(namespace="faro")
    api.plan = {"spec": {"overrides": rows}}
    result_or_one_line(PlanOverrides(api, "faro", "faro").read)


@fuzz
@given(JSON | st.tuples(PLACES, JSON).map(lambda pair: replaced(FILE_OF_SET, *pair)))
def test_the_file_of_faro_set(tmp_path, rows):
    (tmp_path / "o.json").write_text(json.dumps(rows))
    result_or_one_line(JournalOverrides(tmp_path / "o.json").read)


ANSWER = {
    "status": "success",
    "data": {"result": [{"metric": {"job": "a"}, "values": [[60, "1"], [120, "2"]]}]},
}


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
            HttpClient,
            "request",
            lambda self, method, path, *_, **__: answers.get(
                path.split("?")[0], {"now_s": 0, "jobs": {}}
            ),
        )
        cluster = RayServeCluster(
            TWO_JOBS, serve_specs(TWO_JOBS), server, server, Clock.starting_now()
        )
        observed(cluster, 10.0, None, lambda reason, line: failures.append(line))
    assert all("\n" not in line for line in failures)


# --- objects of Kubernetes ------------------------------------------------------------------------

# The API server checks types and the fields that its schema requires. Anything else may be missing.
REQUIRED = {
    "metadata",
    "name",
    "namespace",
    "spec",
    "key",
    "effect",
    "type",
    "status",
    "scopeName",
    "containers",
}
QUANTITIES = st.from_regex(
    r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,3})?(n|u|m|k|M|G|Ki|Mi|Gi|e[0-9])?", fullmatch=True
)
SHAPE = Shape({"cpu": 1.0, "memory": 2.0**30}, tolerations=({"key": "gpu", "operator": "Exists"},))
NODE = kube_things.node(taints=[{"key": "gpu", "value": "a", "effect": "NoSchedule"}])
SIDECAR = {
    "name": "s",
    "restartPolicy": "Always",
    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}},
}
OURS = kube_things.replica("r", initContainers=[SIDECAR], overhead={"cpu": "100m"})
OTHER = kube_things.pod("o", initContainers=[SIDECAR | {"restartPolicy": None}])
QUOTA = kube_things.quota(requests_cpu="5", limits_memory="9Gi")
QUOTA["spec"]["scopeSelector"] = {
    "matchExpressions": [{"scopeName": "NotBestEffort", "operator": "Exists"}]
}
SERVICE = {
    "metadata": {"name": "faro"},
    "status": {
        "activeServiceStatus": {"rayClusterName": "a"},
        "pendingServiceStatus": {"rayClusterName": "b"},
        "conditions": [{"type": "Ready", "status": "False", "reason": "r", "message": "m"}],
    },
}


def without(thing, place):
    """A copy without the n-th of all fields that are not required; unchanged if there is none."""
    fields = []
    thing = copy.deepcopy(thing)

    def walk(one):
        for key, inner in list(one.items()) if isinstance(one, dict) else enumerate(one):
            if isinstance(one, dict) and key not in REQUIRED:
                fields.append((one, key))
            if isinstance(inner, (dict, list)):
                walk(inner)

    walk(thing)
    if fields:
        holder, key = fields[place % len(fields)]
        del holder[key]
    return thing


@fuzz
@given(st.lists(PLACES, min_size=5, max_size=5), QUANTITIES, QUANTITIES, QUANTITIES)
def test_objects_of_kubernetes_without_optional_fields_and_with_any_quantity(
    places, of_node, of_pod, of_quota
):
    node, ours, other, quota, service = map(without, (NODE, OURS, OTHER, QUOTA, SERVICE), places)
    node["status"].get("allocatable", {})["cpu"] = of_node
    other["spec"]["containers"][0].get("resources", {})["requests"] = {
        "cpu": of_pod,
        "memory": of_pod,
    }
    quota["spec"].get("hard", {})["requests.cpu"] = of_quota

    def is_ours(pod):
        return pod["metadata"].get("labels", {}).get("role") == "replica"

    found = capacity([node], [ours, other], [quota], "jobs", is_ours, SHAPE)
    assert 0 <= found.cores < math.inf
    assert found.by_node.keys() | found.unusable.keys() == {"n1"}
    placement([ours], lambda pod: 0, [1.0], found.by_node)
    assert 0 <= cores_of_workers([ours], [node]).cores < math.inf
    assert isinstance(serving_cluster(service), str)
    assert why_not_ready(service, [ours]) is None or why_not_ready(service, [ours]).isprintable()
