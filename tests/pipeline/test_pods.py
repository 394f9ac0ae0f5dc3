"""The pipeline in pods of a kind cluster, with results in a bucket.

`make test-scale-out` runs this if KUBECONFIG is set. It needs the image of `cluster/pipeline.sh` on
the nodes.
"""

import os
import re

import pytest
from checkouts import make_checkout
from pod_world import bucket, in_pods

pytestmark = [
    pytest.mark.scale_out,
    pytest.mark.skipif(
        "FARO_SCALE_OUT" not in os.environ or "KUBECONFIG" not in os.environ,
        reason="runs in a kind cluster: set KUBECONFIG, and run `make test-scale-out`",
    ),
]


def in_bucket(address, folder):
    """Names of the objects in the bucket."""
    import requests

    listed = requests.get(f"{address}/faro?list-type=2&prefix=run/{folder}").text
    return re.findall(r"<Key>run/(.*?)</Key>", listed)


def test_every_job_of_the_smoke_configuration_runs_in_a_pod(tmp_path):
    checkout = make_checkout(tmp_path, real_notebooks=True)
    planned = sum(checkout.would_run("--configfile", "config/smoke.yaml").values())
    with bucket() as address:
        done = in_pods(checkout.folder, address, "--configfile", "config/smoke.yaml", "--jobs", "3")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "results/synthetic/report.html" in in_bucket(address, "results/synthetic/report")
    # Snakemake runs a job with a file marked `local` on this machine, and says so nowhere.
    assert done.stderr.count("Get status with: kubectl describe job") == planned


def test_a_job_that_fails_ends_the_run(tmp_path):
    checkout = make_checkout(tmp_path, real_notebooks=True)
    target = "results/synthetic/traces/jobs.csv"
    too_short = "synthetic={days: 1, minutes: 3}"
    with bucket() as address:
        done = in_pods(checkout.folder, address, "--config", too_short, "--", target)
        assert in_bucket(address, target) == []
    assert done.returncode != 0
