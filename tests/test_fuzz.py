"""Readers of users' files on random input: a result, or an error of one short line, and never a traceback.

`make test-all` runs a minute of it; `make fuzz` more.
"""

import os

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from faro_lib import config
from faro_lib.errors import message_of, one_line
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
