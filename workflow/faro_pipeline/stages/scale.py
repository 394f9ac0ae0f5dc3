"""Stage 70: two models, more jobs, more capacities."""

from typing import ClassVar

from pydantic import Field

from faro_pipeline.stages.section import JOB_MINUTE_GB, Capacities, Clusters, Names, Stage


class Scale(Stage):
    registered: ClassVar = {"largest_policies": "policy", "policies": "policy"}
    notebook: ClassVar = "70_scale"
    advice: ClassVar = "take smaller scale.clusters and scale.largest, or [] for none"

    trials: int = Field(1, ge=1, description="trials per policy in `mixed` and `clusters`")
    minutes: int | None = Field(60, ge=1, description="minutes of the day in `clusters`; null: all")
    mixed: Capacities | None = Field(
        None, description="capacities with two models; null: the middle one; []: skip"
    )
    clusters: Clusters = Field(
        [(10, 32), (20, 70)], description="more jobs: [jobs, replicas]; []: skip"
    )
    largest: Clusters = Field([], description="most jobs, one trial: [jobs, replicas]; []: skip")
    largest_minutes: int | None = Field(
        60, ge=1, description="minutes of the day in `largest`; null: all"
    )
    largest_policies: Names = Field(["FairShare", "Faro-Sum"], description="policies in `largest`")
    curve: Capacities = Field(
        [], description="capacities at which lost utility is plotted; []: skip"
    )
    curve_trials: int = Field(3, ge=1, description="trials per policy and capacity in `curve`")
    policies: Names = Field(
        ["FairShare", "AIAD", "MArk", "Faro-Sum", "Faro-FairSum"],
        description="policies in `mixed` and `curve`",
    )

    def must_hold(self, config, jobs):
        return [("mixed", jobs, self.mixed or []), ("curve", jobs, self.curve)]

    def memory_gb(self, config, jobs, days, minutes):
        job_minutes = [jobs * min(config.minutes or minutes, minutes)]
        for count, _ in self.clusters:
            job_minutes.append(count * min(self.minutes or minutes, minutes))
        for count, _ in self.largest:
            job_minutes.append(count * min(self.largest_minutes or minutes, minutes))
        return JOB_MINUTE_GB * max(job_minutes)
