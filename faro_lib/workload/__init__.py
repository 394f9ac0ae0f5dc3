"""What comes in: jobs, their promises, and their requests per minute."""

from faro_lib.workload.jobs import Job, Traces, Workload, jobs_array

__all__ = ["Job", "Traces", "Workload", "jobs_array"]
