"""Executor profiles: plans for SLURM and Kubernetes, and a run without a shared disk.

A run on SLURM is in test_scale_out.
"""

import importlib.util
import itertools
import re
import shutil

import pytest
import yaml
from checkouts import ROOT, make_checkout

SMALL = ["--config", "capacities=[12,11]", "synthetic={days: 1}", "trials=1"]
ALL_STAGES = ["--config", "synthetic={days: 3}", "live={capacity: 7}", "backend=local"]


def needs(*modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install {module.replace('_', '-')}")


def no_shared_disk(tmp_path) -> list[str]:
    """Options for jobs that exchange files through a storage; here, it is a folder."""
    needs("snakemake_storage_plugin_fs")
    prefix = ["--default-storage-provider", "fs", "--default-storage-prefix", str(tmp_path)]
    return [*prefix, "--shared-fs-usage", "none"]


@pytest.mark.slow
def test_the_whole_pipeline_is_planned_for_slurm(checkout):
    needs("snakemake_executor_plugin_slurm")
    assert checkout.would_run("--profile", "profiles/slurm", *SMALL)["simulate"] == 2


def test_the_whole_pipeline_is_planned_for_kubernetes(checkout, tmp_path):
    needs("snakemake_executor_plugin_kubernetes")
    storage = no_shared_disk(tmp_path)  # in place of a bucket
    planned = checkout.would_run(
        "--profile", "profiles/kubernetes", "--container-image", "x/y:1", *storage, *SMALL
    )
    assert planned["simulate"] == 2


@pytest.mark.parametrize("profile", ["slurm", "kubernetes"])
def test_a_profile_requests_memory_and_time_for_every_job(profile):
    settings = yaml.safe_load((ROOT / "profiles" / profile / "config.yaml").read_text())
    assert {"mem_mb", "runtime"} <= settings["default-resources"].keys()


def print_jobs() -> None:
    """Let Snakemake print each job's rule, threads and place, in its own process."""
    from snakemake.io import is_flagged
    from snakemake.jobs import Job

    def show(job, **options):
        local = any(is_flagged(file, "local") for file in itertools.chain(job.input, job.output))
        print("JOB", job.rule.name, job.threads, "local" if local else "remote")

    Job.log_info = show


def planned_jobs(checkout, *arguments) -> dict[str, tuple[int, str]]:
    """Rule -> threads of its jobs, and whether they run here ("local") or on the cluster.

    Snakemake keeps jobs whose files are marked `local`, and does not say so.
    """
    done = checkout.snakemake("--dry-run", *arguments, prepare=print_jobs)
    assert done.returncode == 0, done.stderr
    jobs = re.findall(r"^JOB (\w+) (\d+) (\w+)$", done.stdout, re.MULTILINE)
    return {rule: (int(threads), place) for rule, threads, place in jobs if rule != "all"}


def test_the_live_stage_takes_all_cores_here_and_a_core_per_replica_on_a_cluster(checkout):
    needs("snakemake_executor_plugin_slurm")
    assert planned_jobs(checkout, "--cores", "3", *ALL_STAGES)["live"][0] == 3
    on_slurm = ["--cores", "9", "--profile", "profiles/slurm"]
    assert planned_jobs(checkout, *on_slurm, *ALL_STAGES)["live"][0] == 7


def test_without_a_shared_disk_every_job_runs_on_the_cluster(tmp_path):
    checkout = make_checkout(tmp_path / "checkout", real_notebooks=True)
    storage = no_shared_disk(tmp_path / "storage")
    jobs = planned_jobs(checkout, "--cores", "1", *storage, *ALL_STAGES)
    assert {"traces", "sloppify", "kubernetes", "draw_kubernetes", "report"} <= jobs.keys()
    assert {place for _, place in jobs.values()} == {"remote"}


def test_without_a_shared_disk_only_jobs_that_read_fetched_traces_run_where_they_are(
    checkout, tmp_path
):
    storage = no_shared_disk(tmp_path)
    jobs = planned_jobs(checkout, "--cores", "1", *storage, "--config", "workload=faro-10jobs")
    stay_here = {rule for rule, (_, place) in jobs.items() if place == "local"}
    assert stay_here == {"fetch", "traces", "sloppify"}


@pytest.mark.slow
def test_jobs_that_share_no_disk_receive_all_their_inputs(checkout, tmp_path):
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed: on Debian, apt-get install rsync")
    done = checkout.snakemake(*no_shared_disk(tmp_path), *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 cores" in (tmp_path / "results" / "synthetic" / "report.html").read_text()
    assert not (checkout.results / "synthetic").exists()
