"""Executor profiles: planned for SLURM and Kubernetes, and run where jobs share no disk."""

import importlib.util
import shutil

import pytest

SMALL = ["--config", "capacities=[12,11]", "synthetic={days: 1}", "trials=1"]


def needs(*modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install {module.replace('_', '-')}")


def test_the_whole_pipeline_is_planned_for_slurm(checkout):
    needs("snakemake_executor_plugin_slurm")
    assert checkout.would_run("--profile", "profiles/slurm", *SMALL)["simulate"] == 2


def test_the_whole_pipeline_is_planned_for_kubernetes(checkout, tmp_path):
    needs("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs")
    storage = ["--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path)]  # no bucket is at hand
    planned = checkout.would_run("--profile", "profiles/kubernetes", "--container-image", "x/y:1", *storage, *SMALL)
    assert planned["simulate"] == 2


def test_jobs_that_share_no_disk_get_all_that_they_read(checkout, tmp_path):
    needs("snakemake_storage_plugin_fs")
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not there: on Debian, apt-get install rsync")
    storage = [
        "--default-storage-provider",
        "fs",
        "--default-storage-prefix",
        str(tmp_path),
        "--shared-fs-usage",
        "none",
    ]
    done = checkout.snakemake(*storage, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 replicas" in (tmp_path / "results" / "synthetic" / "report.html").read_text()
    assert not (checkout.results / "synthetic").exists()
