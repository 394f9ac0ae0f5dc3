"""The schema of the configuration: every key, its default, what it means, and a clear error for each mistake.

`config/default.yaml` is written from here (`make config`); overlays in config/ and `--config` override its values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from faro_lib.errors import nearest
from faro_lib.workload import PUBLISHED, SYNTHETIC

PUBLISHED_JOBS, PUBLISHED_DAYS = 10, 10
Value = TypeVar("Value")


def _unique(values: list[Value]) -> list[Value]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"has {value!r} more than once")
    return values


def _a_replica_per_job(clusters: list[tuple[int, int]]) -> list[tuple[int, int]]:
    for jobs, replicas in clusters:
        if not 1 <= jobs <= replicas:
            raise ValueError(f"has [{jobs}, {replicas}]; a cluster has at least 1 job and 1 replica for each")
    return clusters


Unique = Annotated[list[str], AfterValidator(_unique)]
Names = Annotated[Unique, Field(min_length=1)]
Capacities = Annotated[list[PositiveInt], AfterValidator(_unique)]
Clusters = Annotated[list[tuple[int, int]], AfterValidator(_a_replica_per_job), AfterValidator(_unique)]
Numbers = Annotated[list[NonNegativeFloat], AfterValidator(_unique)]
PositiveNumbers = Annotated[list[PositiveFloat], AfterValidator(_unique)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Synthetic(Section):
    seed: int = Field(1, ge=0, description="seed of the generator")
    jobs: int = Field(10, ge=1, description="inference jobs")
    days: int = Field(10, ge=0, description="training days; the evaluation day follows them")
    minutes: int = Field(360, ge=1, description="minutes in a (downsampled) day")


class Forecast(Section):
    posterior: str | None = Field(None, description="a fitted posterior (.npz) to use; null: fit one")
    draws: int = Field(200, ge=10, description="posterior draws per chain")
    tune: int = Field(300, ge=10, description="tuning steps per chain")
    chains: int = Field(2, ge=1, description="chains of the sampler")
    data_stride: int = Field(2, ge=1, description="fit to every N-th minute")
    samples: int = Field(200, ge=10, description="sample paths per forecast, for the scores")
    baselines: Names = Field(["persistence", "seasonal", "kalman", "ar"], description="forecasters to compare with")


class Sloppify(Section):
    days: int = Field(2, ge=1, description="how many of the last training days the decisions are taken from")
    windows: int = Field(8, ge=2, description="decisions, evenly spread over those days; the paper's size: 72")
    slow_windows: int = Field(1, ge=1, description="decisions that the slow solvers solve")
    objectives: Names = Field(["Sum", "FairSum"], description="objectives")
    solvers: Names = Field(["exact", "greedy", "convex", "cobyla"], description="solvers of every decision")
    job_counts: list[int] = Field([10, 20, 50], min_length=1, description="numbers of jobs in the scaling study")


class Ablation(Section):
    capacities: Capacities | None = Field(
        None, description="cluster capacities in cores; the paper's: [40, 36, 32]; null: the middle one; []: skip"
    )
    trials: int = Field(1, ge=1, description="trials per step and capacity")
    objective: str = Field("FairSum", description="objective; that of the published ablation is FairSum")


class Scale(Section):
    trials: int = Field(1, ge=1, description="trials, except for the curve and the largest workloads")
    minutes: int | None = Field(60, ge=1, description="minutes of the day in the larger workloads; null: all")
    mixed: Capacities | None = Field(
        None, description="cluster capacities with ResNet18 in every other job; null: the middle one; []: skip"
    )
    clusters: Clusters = Field(
        [(10, 32), (20, 70), (100, 320)], description="larger workloads: [jobs, replicas]; []: skip"
    )
    largest: Clusters = Field(
        [], description="[jobs, replicas] of the largest workloads, which have their own minutes and policies; []: skip"
    )
    largest_minutes: int | None = Field(60, ge=1, description="minutes of the day in the largest workloads; null: all")
    largest_policies: Names = Field(
        ["FairShare", "Faro-Sum"], description="policies in the largest workloads, one trial"
    )
    curve: Capacities = Field([], description="cluster capacities of the curve of lost utility; []: skip")
    curve_trials: int = Field(3, ge=1, description="trials of the curve")
    policies: Names = Field(
        ["FairShare", "AIAD", "MArk", "Faro-FairSum (paper)", "Faro-Sum", "Faro-FairSum"],
        description="policies with mixed models and in the curve",
    )

    @property
    def wanted(self) -> bool:
        """Whether any part is configured."""
        return bool(self.mixed != [] or self.clusters or self.largest or self.curve)


class Sensitivity(Section):
    trials: int = Field(1, ge=1, description="trials per value and policy")
    capacity: int | None = Field(None, ge=1, description="cluster capacity in cores; null: the middle one")
    first_minute: int = Field(0, ge=0, description="first minute of the slice of the evaluation day")
    minutes: int = Field(60, ge=1, description="length of the slice")
    policies: Unique = Field(
        ["FairShare", "AIAD", "Faro-FairSum"], min_length=2, description="policies; the margin is that of the last one"
    )
    cold_start_s: Numbers = Field([5, 35, 120], description="seconds until a new replica serves; []: skip")
    slo_factor: PositiveNumbers = Field([2, 4, 8], description="SLO in service times; []: skip")
    forecast_error: Numbers = Field([0, 0.25, 0.5], description="relative error of an oracle forecast; []: skip")
    interval_s: PositiveNumbers = Field([60, 300], description="seconds between two decisions; []: skip")
    scv_factor: Numbers = Field(
        [1, 4], description="variability of service times, as a multiple of the measured; []: skip"
    )

    @property
    def wanted(self) -> bool:
        """Whether any parameter is varied."""
        return any((self.cold_start_s, self.slo_factor, self.forecast_error, self.interval_s, self.scv_factor))


class Live(Section):
    jobs: Annotated[list[NonNegativeInt], AfterValidator(_unique)] | None = Field(
        None, min_length=1, description="jobs of the workload, counted from 0; null: the first three"
    )
    capacity: int = Field(8, ge=1, description="cluster capacity in cores, one per replica")
    first_minute: int = Field(0, ge=0, description="first minute of the slice of the evaluation day")
    minutes: int = Field(3, ge=2, description="length of the slice")
    scale: float = Field(2, gt=0, description="speed-up: seconds of the trace per second of wall time; must divide 60")
    tick_s: float = Field(30, ge=30, description="wall seconds between two decisions")
    max_ongoing_requests: int = Field(
        10, ge=1, description="requests that a replica holds, the one in service included"
    )
    max_rps: float = Field(
        150, gt=0, description="request rate per second that is sent at most; a busier slice is scaled down"
    )
    trials: int = Field(1, ge=1, description="trials per policy, each with its own seed")
    policies: Names = Field(["FairShare", "Faro-FairSum"], description="policies")
    address: str | None = Field(None, description="Ray's dashboard, http://host:8265; backend local starts its own")
    serve_address: str | None = Field(None, description="address of the applications; null: port 8000 of the same host")

    @field_validator("scale")
    @classmethod
    def _whole_seconds(cls, scale: float) -> float:
        if abs(60 / scale - round(60 / scale)) > 1e-9:
            raise ValueError("must divide 60: 1, 2, 3, 4, 5, 6, 10, ...")
        return scale

    @model_validator(mode="after")
    def _a_replica_for_every_job(self):
        if self.capacity < len(self.jobs or [0]):
            raise ValueError(
                f"live.capacity={self.capacity} is less than one core for each of its {len(self.jobs)} jobs"
            )
        return self


class Config(Section):
    """The configuration of the pipeline."""

    workload: str = Field(SYNTHETIC, description=f"{SYNTHETIC}, {PUBLISHED} (the published traces), or a .csv file")
    jobs: str | None = Field(None, description="a .csv or .yaml table of its jobs; null: defaults for every job")
    results: str = Field("results", min_length=1, description="the folder of all results")
    plugins: list[str] = Field([], description="your files that register a policy, forecaster, objective or solver")
    raw: str = Field("data/raw", min_length=1, description="the folder of fetched traces")
    backend: Literal["none", "local", "kind", "kubernetes"] = Field("local", description="where the live stage runs")
    capacities: Capacities = Field(
        [36, 32, 16], min_length=1, description="cluster capacities in cores, one per replica"
    )
    trials: int = Field(2, ge=1, description="trials per policy and capacity, each with its own seed; the paper ran 5")
    minutes: int | None = Field(None, ge=1, description="minutes of the evaluation day to replay; null: all")
    policies: Names = Field(
        ["FairShare", "Oneshot", "AIAD", "Faro-Sum"], description="policies, in the order of the figures"
    )
    synthetic: Synthetic = Field(Synthetic(), description="the generated workload")
    forecast: Forecast = Field(Forecast(), description="stage 30: the Bayesian forecaster, fitted on the training days")
    sloppify: Sloppify = Field(Sloppify(), description="stage 40: solvers and formulations compared")
    ablation: Ablation = Field(Ablation(), description="stage 60: what each step is worth")
    sensitivity: Sensitivity = Field(
        Sensitivity(), description="stage 65: where the margin ends, one parameter at a time"
    )
    scale: Scale = Field(Scale(), description="stage 70: mixed models, more jobs, more capacities")
    live: Live = Field(Live(), description="stage 80: real requests on real replicas of Ray Serve")

    @field_validator("workload")
    @classmethod
    def _a_known_workload_or_a_file(cls, workload: str) -> str:
        known = (SYNTHETIC, PUBLISHED)
        if workload not in known and Path(workload).suffix != ".csv":
            raise ValueError(f"is neither a workload nor a .csv file; {nearest(workload, known)}")
        if workload not in known and Path(workload).stem in known:
            raise ValueError(f"would overwrite the results of the workload {Path(workload).stem}; rename the file")
        return workload

    @field_validator("jobs")
    @classmethod
    def _a_table_of_jobs(cls, jobs: str | None) -> str | None:
        if jobs is not None and Path(jobs).suffix not in (".csv", ".yaml", ".yml"):
            raise ValueError("is not a table of jobs; accepted: the path of a .csv or .yaml file")
        return jobs

    @model_validator(mode="after")
    def _a_replica_for_every_job(self):
        jobs = {SYNTHETIC: self.synthetic.jobs, PUBLISHED: PUBLISHED_JOBS}.get(self.workload, 1)
        for key, capacities in {
            "capacities": self.capacities,
            "ablation.capacities": self.ablation.capacities,
            "scale.mixed": self.scale.mixed,
            "scale.curve": self.scale.curve,
            "sensitivity.capacity": [self.sensitivity.capacity] if self.sensitivity.capacity else [],
        }.items():
            if capacities and min(capacities) < jobs:
                raise ValueError(f"{key}: {min(capacities)} replicas are fewer than the {jobs} jobs of {self.workload}")
        if self.live.jobs and Path(self.workload).suffix != ".csv" and max(self.live.jobs) >= jobs:
            raise ValueError(f"live.jobs has {max(self.live.jobs)}; {self.workload} has jobs 0 to {jobs - 1}")
        return self

    def or_middle(self, capacities: list[int] | None) -> list[int]:
        """`capacities`, or the middle one of the configured capacities for None.

        >>> Config().or_middle(None), Config().or_middle([])
        ([32], [])
        """
        return [sorted(self.capacities)[len(self.capacities) // 2]] if capacities is None else capacities

    @property
    def stem(self) -> str:
        """Name of the workload, and of its folder under results."""
        return self.workload if self.workload in (SYNTHETIC, PUBLISHED) else Path(self.workload).stem
