"""All settings of a pipeline run: the general ones here, those of a stage in stages/<stage>.py."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from faro_lib.errors import nearest
from faro_lib.workload import PUBLISHED, SYNTHETIC
from faro_ops.section import Section
from faro_pipeline.derived import ENDINGS, PUBLISHED_JOBS, stem_of
from faro_pipeline.stages.ablation import Ablation
from faro_pipeline.stages.days import Days
from faro_pipeline.stages.forecast import Forecast
from faro_pipeline.stages.live import Live
from faro_pipeline.stages.llm import Llm
from faro_pipeline.stages.misspecification import Misspecification
from faro_pipeline.stages.replicas import Replicas
from faro_pipeline.stages.scale import Scale
from faro_pipeline.stages.section import Capacities, Names, Stage
from faro_pipeline.stages.sensitivity import Sensitivity
from faro_pipeline.stages.sharing import Sharing
from faro_pipeline.stages.sloppify import Sloppify
from faro_pipeline.stages.traces import Synthetic


class Config(Section):
    """All settings of a pipeline run."""

    workload: str = Field(
        SYNTHETIC,
        description=f"{SYNTHETIC}, {PUBLISHED} (published traces), a .csv file or a request log",
    )
    jobs: str | None = Field(
        None, description=".csv or .yaml table of the jobs; null: defaults for every job"
    )
    results: str = Field("results", min_length=1, description="folder of all results")
    plugins: list[str] = Field(
        [], description="your files that register a policy, forecaster, objective or solver"
    )
    raw: str = Field("data/raw", min_length=1, description="folder of fetched traces")
    backend: Literal["none", "recorded", "local", "kind", "kubernetes"] = Field(
        "recorded",
        description="cluster of the live stage: local, kind or kubernetes; recorded: a past run; "
        "none: skip it",
    )
    capacities: Capacities = Field(
        [36, 32, 16], min_length=1, description="cluster capacities in cores"
    )
    trials: int = Field(
        2,
        ge=1,
        le=10_000,
        description="trials per policy and capacity, each with its own seed; the paper's: 5",
    )
    minutes: int | None = Field(
        None, ge=1, description="minutes of the evaluation day to replay; null: all"
    )
    policies: Names = Field(
        ["FairShare", "Oneshot", "AIAD", "Faro-Sum"], description="policies, in the figures' order"
    )
    forecaster: str = Field(
        "auto",
        description="forecaster of the policies; `auto` and `bayes` use the fitted posterior",
    )
    synthetic: Synthetic = Field(Synthetic(), description="the generated workload")
    forecast: Forecast = Field(Forecast(), description="stage 30: fit the Bayesian forecaster")
    sloppify: Sloppify = Field(Sloppify(), description="stage 40: compare solvers and formulations")
    ablation: Ablation = Field(
        Ablation(), description="stage 60: measure the effect of each design step"
    )
    sensitivity: Sensitivity = Field(
        Sensitivity(), description="stage 65: vary one parameter at a time"
    )
    misspecification: Misspecification = Field(
        Misspecification(), description="stage 67: services that are not as stated"
    )
    scale: Scale = Field(Scale(), description="stage 70: mixed models, more jobs, more capacities")
    days: Days = Field(Days(), description="stage 75: judge several days and further workloads")
    replicas: Replicas = Field(Replicas(), description="stage 85: a mix of kinds of replica")
    sharing: Sharing = Field(Sharing(), description="stage 45: replicas that several jobs share")
    llm: Llm = Field(Llm(), description="stage 87: ten language-model services of ServeGen")
    live: Live = Field(Live(), description="stage 80: send requests to replicas on Ray Serve")

    @field_validator("workload")
    @classmethod
    def _known_or_a_csv_file(cls, workload: str) -> str:
        known = (SYNTHETIC, PUBLISHED)
        if workload not in known and not workload.endswith(ENDINGS):
            raise ValueError(f"is neither a workload nor a .csv file; {nearest(workload, known)}")
        if workload not in known and stem_of(workload) in known:
            raise ValueError(
                f"would overwrite the results of the workload {stem_of(workload)}; rename the file"
            )
        return workload

    @field_validator("jobs")
    @classmethod
    def _csv_or_yaml(cls, jobs: str | None) -> str | None:
        if jobs is not None and Path(jobs).suffix not in (".csv", ".yaml", ".yml"):
            raise ValueError("is not a table of jobs; accepted: the path of a .csv or .yaml file")
        return jobs

    @model_validator(mode="after")
    def _one_replica_per_job(self):
        jobs = {SYNTHETIC: self.synthetic.jobs, PUBLISHED: PUBLISHED_JOBS}.get(self.workload, 1)
        if (least := min(self.capacities)) < jobs:
            raise ValueError(
                f"capacities: {least} replicas are fewer than the {jobs} jobs of {self.workload}"
            )
        return self

    @model_validator(mode="after")
    def _worlds_have_names_of_their_own(self):
        names = [stem_of(self.workload), *(world.name for world in self.days.worlds)]
        if repeated := {name for name in names if names.count(name) > 1}:
            problem = f"two workloads have the name {min(repeated)!r}"
            raise ValueError(f"days.worlds: {problem}; the results of one would be lost")
        return self

    def stages(self) -> dict[str, Stage]:
        """Name of a section -> the settings of the stage, in the order of the settings."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: found for name, found in sections.items() if isinstance(found, Stage)}
