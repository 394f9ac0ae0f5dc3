"""What only an operator's commands read in a table of jobs: sections for a platform, and what is not measured."""

from pathlib import Path

from faro_lib.workload import Job
from faro_lib.workload.readers import job_rows
from faro_lib.workload.replicas import replica_of


def read_sections(path: str | Path, section: str) -> dict[str, dict]:
    """Job name -> the job's `section` (one of SECTIONS) in a .yaml table; {} if the job has no such section."""
    sections = {}
    for n, row in enumerate(job_rows(path), 1):
        mapping = row.get(section) or {}
        if not isinstance(mapping, dict):
            raise ValueError(f"{path}, job {n}: {section}={mapping!r} must be a mapping")
        sections[str(row.get("job"))] = mapping
    return sections


def assumptions(path: str | Path) -> list[str]:
    """Warnings about missing service times and cold starts. Each message names the jobs and the assumed default."""
    rows, usual = job_rows(path), Job("usual")
    measured = [
        row for row in rows if row.get("service_time_s") is not None or row.get("model") is None
    ]
    kinds = {
        str(row.get("job")): replica_of(row.get("replica") or {"kind": "serial"}).kind
        for row in rows
    }
    timed = [row for row in measured if kinds[str(row.get("job"))] in ("serial", "concurrent")]
    varying = [row for row in measured if row.get("service_std_s") is None]
    columns = {
        "service_time_s": (timed, f"{usual.service_time_s:g} s is assumed"),
        "service_scv": (varying, "constant service times are assumed, which is optimistic for p99"),
        "cold_start_s": (rows, f"{usual.cold_start_s:g} s is assumed"),
    }
    messages = []
    for name, (among, text) in columns.items():
        if absent := [str(row.get("job")) for row in among if row.get(name) is None]:
            more = [f"{len(absent) - 3} more"] if len(absent) > 4 else []
            messages.append(
                f"{name} is not given for {', '.join([*absent[: 3 if more else 4], *more])}: {text}"
            )
    return messages
