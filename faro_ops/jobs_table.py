"""Parts of a table of jobs that only an operator's commands need: sections, and assumed values."""

import json
from pathlib import Path

from faro_lib.workload import Job, pools_of
from faro_lib.workload.readers import job_rows, read_jobs
from faro_lib.workload.replicas import OF_GPU, Continuous, Disaggregated, measured_gpus, replica_of


def read_sections(path: str | Path, section: str, strict: bool = True) -> dict[str, dict]:
    """Job name -> the job's `section` (one of SECTIONS) in a .yaml table; {} if it has none.

    strict : raise ValueError for a section that is no mapping. Otherwise the result has it as it
        is: a controller holds its job, and goes on with the others.
    """
    sections = {}
    for n, row in enumerate(job_rows(path), 1):
        mapping = row.get(section) or {}
        if strict and not isinstance(mapping, dict):
            raise ValueError(f"{path}, job {n}: {section}={mapping!r} must be a mapping")
        sections[str(row.get("job"))] = mapping
    return sections


def read_served(path: str | Path) -> tuple[Job, ...]:
    """The jobs of a table; ValueError if the replicas of one are of a kind that no cluster serves.

    Nothing in front of the replicas of a job knows which of them do prefill and which decode.
    """
    jobs = read_jobs(path)
    for job in jobs:
        if isinstance(job.replica, Disaggregated):
            raise ValueError(
                f"{path}: job {job.name!r}: replicas of kind {job.replica.kind} are simulated only "
                "(`faro recommend`, `faro simulate`); to serve the job, take kind continuous"
            )
    return jobs


def read_unshared(path: str | Path, simulated: bool = False) -> tuple[Job, ...]:
    """`read_served`, or all kinds if they are `simulated`; ValueError if jobs share replicas.

    Nothing in front of Deployments routes requests to shared replicas, and advice explains each job
    alone.
    """
    jobs = read_jobs(path) if simulated else read_served(path)
    for pool in pools_of(jobs):
        if pool.shared:
            names = ", ".join(jobs[j].name for j in pool.jobs)
            raise ValueError(
                f"{path}: {names} share replicas (pool={pool.name!r}), which only `faro simulate` "
                "and Ray Serve (`faro deploy`, `faro run`) know; leave out `pool`"
            )
    return jobs


def assumptions(path: str | Path) -> list[str]:
    """Warnings about service times and cold starts that the table does not give.

    Each message names the jobs and the assumed default. Others are about replicas of measured GPUs
    that serve more than was measured.
    """
    rows = job_rows(path)
    usual = Job("usual")
    measured = [
        row for row in rows if row.get("service_time_s") is not None or row.get("model") is None
    ]
    timed = [
        row
        for row in measured
        if replica_of(row.get("replica") or {"kind": "serial"}).kind in ("serial", "concurrent")
    ]
    varying = [row for row in measured if row.get("service_std_s") is None]
    columns = {
        "service_time_s": (timed, f"{usual.service_time_s:g} s is assumed"),
        "service_scv": (varying, "constant service times are assumed, which is optimistic for p99"),
        "cold_start_s": (rows, f"{usual.cold_start_s:g} s is assumed"),
    }
    messages = []
    for name, (among, text) in columns.items():
        absent = [str(row.get("job")) for row in among if row.get(name) is None]
        if not absent:
            continue
        if len(absent) > 4:
            absent = [*absent[:3], f"{len(absent) - 3} more"]
        messages.append(f"{name} is not given for {', '.join(absent)}: {text}")
    return messages + [text for row in rows for text in _extrapolated(row)]


def _extrapolated(row: dict) -> list[str]:
    """Warnings where the replica of a measured GPU serves longer prompts or larger batches."""
    mapping = row.get("replica")
    if isinstance(mapping, str):
        mapping = json.loads(mapping)
    if not mapping or "gpu" not in mapping:
        return []
    replica = replica_of(mapping)
    assert isinstance(replica, Continuous)
    measured = measured_gpus()[tuple(str(mapping[name]) for name in OF_GPU)]
    prompts = max(replica.prompt_tokens, replica.max_tokens)
    limits = {
        f"{prompts:g} prompt tokens in a step": (prompts, measured["longest_prompt"]),
        f"{replica.max_sequences} sequences": (replica.max_sequences, measured["largest_batch"]),
    }
    return [
        f"{row.get('job')}: {what} are more than the {most} that were measured on "
        f"{mapping['gpu']}: extrapolated"
        for what, (value, most) in limits.items()
        if value > most
    ]
