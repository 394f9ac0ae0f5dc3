"""Jobs, their SLOs, and their requests per minute."""

from faro_lib.workload.jobs import PUBLISHED, SYNTHETIC, Job, JobArrays, Traces, Workload, arrays_of
from faro_lib.workload.pools import Placement, Pool, pools_of

__all__ = [
    "PUBLISHED",
    "SYNTHETIC",
    "Job",
    "JobArrays",
    "Placement",
    "Pool",
    "Traces",
    "Workload",
    "arrays_of",
    "pools_of",
]
