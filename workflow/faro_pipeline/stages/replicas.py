"""Stage 85: a mix of serial, batched and token-generating replicas."""

from pydantic import Field

from faro_lib.workload import Job
from faro_pipeline.stages.section import Capacities, Stage


class Replicas(Stage):
    capacities: Capacities | None = Field(
        [], description="cluster capacities in cores; null: the middle one; []: skip"
    )
    trials: int = Field(2, ge=1, description="trials per policy and capacity")
    minutes: int | None = Field(None, ge=1, description="minutes of the evaluation day; null: all")

    def must_hold(self, config, jobs):
        # The stage replaces everything about the jobs but their names.
        default_jobs = tuple(Job(job.name) for job in jobs)
        return [("capacities", default_jobs, self.capacities or [])]
