"""Tenant quotas: reading and writing them, plans, and a simulated day."""

from __future__ import annotations

import numpy as np
import pytest

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate import draw, simulate
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.shares import at_least_one_each, fair_share
from faro_lib.workload.synthetic import synthetic
from studies.traces.files import write_jobs

TRACES = synthetic(seed=3, jobs=3, days=2, minutes=60)
TABLE = """
- {job: job0, tenant: red, tenant_quota: 3}
- {job: job1, tenant: red, tenant_quota: 3}
- {job: job2, tenant: blue}
"""


@pytest.fixture
def jobs_yaml(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text(TABLE)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".yaml"])
def test_quotas_are_read_back_as_written(jobs_yaml, tmp_path, suffix):
    jobs = read_jobs(jobs_yaml)
    assert [job.tenant_quota for job in jobs] == [3.0, 3.0, None]
    write_jobs(jobs, tmp_path / f"again{suffix}")
    assert read_jobs(tmp_path / f"again{suffix}") == jobs


def test_jobs_of_one_tenant_with_different_quotas_are_refused(jobs_yaml):
    jobs_yaml.write_text(TABLE.replace("tenant_quota: 3}", "tenant_quota: 4}", 1))
    with pytest.raises(
        ValueError, match=r"jobs.yaml: job 'job1': tenant_quota=3.0 differs from 4.0.* must agree"
    ):
        read_jobs(jobs_yaml)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tenant_quota": 2.0}, "tenant='' must be named where the job has a tenant_quota"),
        (
            {"tenant": "red", "tenant_quota": -1.0},
            "tenant_quota=-1.0 must be a finite number of cores >= 0",
        ),
        (
            {"tenant": "red", "tenant_quota": np.inf},
            "tenant_quota=inf must be a finite number of cores >= 0",
        ),
    ],
)
def test_a_bad_quota_is_named_with_what_is_accepted(fields, message):
    with pytest.raises(ValueError, match=message):
        Job("a", **fields)


def test_a_quota_below_the_minimum_replicas_is_refused():
    jobs = tuple(Job(name, tenant="red", tenant_quota=1.0) for name in "ab")
    with pytest.raises(
        ValueError,
        match="tenant 'red': tenant_quota=1 cores cannot hold the minimum of its jobs, 2",
    ):
        at_least_one_each(jobs, 9)


@pytest.mark.parametrize(
    "name", ["Faro-Sum", "Faro-Fair", "Faro-FairSum", "FairShare", "AIAD", "Oneshot", "MArk"]
)
def test_no_policy_exceeds_a_quota_in_the_simulator(jobs_yaml, name):
    jobs = read_jobs(jobs_yaml)
    traces = Traces(jobs, TRACES.train, TRACES.evaluation)
    # 5.4 erlangs each, so that every policy wants more than the quota.
    day = Workload(jobs, np.full((3, 12), 1800))
    context = PolicyContext(jobs, forecast.fit("ar", traces))
    targets = np.array(simulate(day, make(name, context), 20, draws=draw(day, 24)).decisions.target)
    assert targets[:, :2].sum(axis=1).max() <= 3 < targets[:, 2].max()


def test_a_fair_share_stays_within_quotas_and_leaves_other_jobs_their_share(jobs_yaml):
    assert fair_share(read_jobs(jobs_yaml), 12).tolist() == [1, 2, 4]
