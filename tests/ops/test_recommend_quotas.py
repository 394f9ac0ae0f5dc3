"""`faro recommend` with quotas of tenants in the table of jobs."""

import json

import pytest

from faro_lib.workload.synthetic import synthetic
from faro_ops import cli
from studies.traces.files import traces_frame

pytestmark = pytest.mark.usefixtures("coarse_tables")

JOBS = """
- {job: job0, tenant: red, tenant_quota: 3}
- {job: job1, tenant: red, tenant_quota: 3}
- {job: job2, tenant: blue}
"""


def test_recommend_plans_within_the_quotas_of_the_table(tmp_path, capsys):
    (tmp_path / "jobs.yaml").write_text(JOBS)
    traces = synthetic(seed=3, jobs=3, days=2, minutes=60)
    table = traces_frame(traces).query("sample == 0")[["day", "minute", "job", "requests"]]
    table.assign(requests=1800).to_csv(tmp_path / "counts.csv", index=False)
    arguments = f"--workload {tmp_path}/counts.csv --capacity 30 --json".split()

    def replicas(*more):
        cli.main(["recommend", *arguments, *more])
        return [row["replicas"] for row in json.loads(capsys.readouterr().out)["jobs"]]

    assert min(replicas()) > 3
    plan = replicas("--jobs", str(tmp_path / "jobs.yaml"))
    assert sum(plan[:2]) <= 3 < plan[2]
