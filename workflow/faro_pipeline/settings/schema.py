"""Every setting of the pipeline. `make config` writes config/default.yaml and docs/configuration.md from this module."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from faro_lib.errors import nearest
from faro_lib.workload import PUBLISHED, SYNTHETIC
from faro_lib.workload.changes import CHANGES, Change
from faro_lib.workload.jobs import TABLES

PUBLISHED_JOBS, PUBLISHED_DAYS = 10, 10
Value = TypeVar("Value")


def _unique(values: list[Value]) -> list[Value]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"has {value!r} more than once")
    return values


def _one_replica_per_job(clusters: list[tuple[int, int]]) -> list[tuple[int, int]]:
    for jobs, replicas in clusters:
        if not 1 <= jobs <= replicas:
            raise ValueError(
                f"has [{jobs}, {replicas}]; a cluster needs at least 1 job and 1 replica per job"
            )
    return clusters


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_unique)]
# Names of policies. The last policy is compared with the others.
Compared = Annotated[list[str], Field(min_length=2), AfterValidator(_unique)]
Capacities = Annotated[list[Annotated[int, Field(gt=0, le=1_000_000)]], AfterValidator(_unique)]
Clusters = Annotated[
    list[tuple[int, int]], AfterValidator(_one_replica_per_job), AfterValidator(_unique)
]
Numbers = Annotated[list[Annotated[float, Field(ge=0)]], AfterValidator(_unique)]
PositiveNumbers = Annotated[list[Annotated[float, Field(gt=0)]], AfterValidator(_unique)]
WholeTicks = Annotated[list[Annotated[float, Field(gt=0, multiple_of=10)]], AfterValidator(_unique)]
Indices = Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(_unique)]


def _stem(workload: str) -> str:
    """The name of a file with request counts, without folder and extension."""
    name = Path(workload).name
    return next((name.removesuffix(ending) for ending in TABLES if name.endswith(ending)), name)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Synthetic(Section):
    seed: int = Field(1, ge=0, description="seed of the generator")
    jobs: int = Field(10, ge=1, description="inference jobs")
    days: int = Field(10, ge=0, description="training days; the evaluation day follows them")
    minutes: int = Field(360, ge=1, description="minutes in a (downsampled) day")
    change: Change = Field(
        "none",
        description=f"what earlier days do not foretell: {', '.join(CHANGES[:-1])} or {CHANGES[-1]}",
    )


class Forecast(Section):
    posterior: str | None = Field(
        None, description="a fitted posterior (.npz) to use; null: fit one"
    )
    draws: int = Field(1000, ge=10, description="posterior draws per chain")
    tune: int = Field(600, ge=10, description="tuning steps per chain")
    chains: int = Field(4, ge=1, description="chains of the sampler")
    samples: int = Field(200, ge=10, description="sample paths per forecast, for the scores")
    baselines: Names = Field(
        ["persistence", "seasonal", "kalman", "structural", "ar"],
        description="forecasters to compare",
    )


class Sloppify(Section):
    days: int = Field(
        2, ge=1, description="number of last training days from which decisions are taken"
    )
    windows: int = Field(
        8, ge=2, description="number of decisions, spread evenly over those days; the paper's: 72"
    )
    slow_windows: int = Field(1, ge=1, description="number of decisions for the slow solvers")
    objectives: Names = Field(["Sum", "FairSum"], description="objectives to maximise")
    solvers: Names = Field(
        ["exact", "greedy", "convex", "cobyla"], description="solvers to compare"
    )
    job_counts: list[int] = Field(
        [10, 20, 50], min_length=1, description="numbers of jobs in the scaling study"
    )


class Ablation(Section):
    capacities: Capacities | None = Field(
        None, description="cluster capacities in cores; null: the middle one; []: skip"
    )
    trials: int = Field(1, ge=1, description="trials per step and capacity")
    objective: Literal["Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum"] = Field(
        "FairSum", description="objective to maximise; the paper's: FairSum"
    )


class Scale(Section):
    trials: int = Field(1, ge=1, description="trials per policy in `mixed` and `clusters`")
    minutes: int | None = Field(60, ge=1, description="minutes of the day in `clusters`; null: all")
    mixed: Capacities | None = Field(
        None, description="capacities with two models; null: the middle one; []: skip"
    )
    clusters: Clusters = Field(
        [(10, 32), (20, 70), (100, 320)], description="more jobs: [jobs, replicas]; []: skip"
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

    @property
    def wanted(self) -> bool:
        """Whether any part of the stage is configured to run."""
        return bool(self.mixed != [] or self.clusters or self.largest or self.curve)


class Sensitivity(Section):
    trials: int = Field(1, ge=1, description="trials per value and policy")
    capacity: int | None = Field(
        None, ge=1, description="cluster capacity in cores; null: the middle one"
    )
    first_minute: int = Field(
        0, ge=0, description="first minute of the slice of the evaluation day"
    )
    minutes: int = Field(60, ge=1, description="minutes of the slice")
    policies: Compared = Field(
        ["FairShare", "AIAD", "Faro-FairSum"],
        description="policies; the last one is compared with the rest",
    )
    cold_start_s: Numbers = Field(
        [5, 35, 120], description="seconds until a new replica serves; []: skip"
    )
    slo_factor: PositiveNumbers = Field(
        [2, 4, 8], description="SLO as a multiple of the service time; []: skip"
    )
    forecast_error: Numbers = Field(
        [0, 0.25, 0.5], description="relative error of an oracle forecast; []: skip"
    )
    interval_s: WholeTicks = Field([60, 300], description="seconds between two decisions; []: skip")
    scv_factor: Numbers = Field(
        [1, 4], description="factor on the variance of service times; []: skip"
    )

    @property
    def wanted(self) -> bool:
        """Whether any parameter is varied."""
        return any(
            (
                self.cold_start_s,
                self.slo_factor,
                self.forecast_error,
                self.interval_s,
                self.scv_factor,
            )
        )


class World(Section):
    """A workload, besides the configured one, on which stage 75 of the pipeline compares the policies."""

    name: str = Field(pattern=r"^[\w-]+$", description="its name in figures and tables")
    workload: str = SYNTHETIC
    jobs: str | None = None
    synthetic: Synthetic = Synthetic()
    judged: list[int] | None = Field(None, min_length=1)
    capacities: Capacities = Field(min_length=1)


class Days(Section):
    judged: list[int] | None = Field(
        [],
        description="days to judge, each with what was known before it; null: the evaluation day; []: skip",
    )
    trials: int = Field(1, ge=1, description="trials per day, policy and capacity")
    policies: Compared = Field(
        ["FairShare", "AIAD", "Faro-Sum"],
        description="policies; the last one is compared with the rest",
    )
    forecasters: Names = Field(
        ["auto", "ar"], description="that of all policies, then others for the last policy"
    )
    worlds: list[World] = Field(
        [],
        description="further workloads, each with name and capacities, and as needed workload, jobs, synthetic and judged",
    )


class Replicas(Section):
    capacities: Capacities | None = Field(
        [], description="cluster capacities in cores; null: the middle one; []: skip"
    )
    trials: int = Field(2, ge=1, description="trials per policy and capacity")
    minutes: int | None = Field(None, ge=1, description="minutes of the evaluation day; null: all")


class Live(Section):
    jobs: Indices | None = Field(
        None, min_length=1, description="indices of the jobs to serve; null: [0, 1, 2]"
    )
    capacity: int = Field(8, ge=1, description="cluster capacity in cores, one per replica")
    first_minute: int = Field(
        0, ge=0, description="first minute of the slice of the evaluation day"
    )
    minutes: int = Field(3, ge=2, description="minutes of the slice")
    scale: float = Field(
        2, gt=0, description="speed-up: trace seconds per wall second; must divide 60"
    )
    tick_s: float = Field(30, ge=30, description="wall seconds between two decisions")
    max_ongoing_requests: int = Field(
        10, ge=1, description="requests that a replica queues or serves at once"
    )
    max_rps: float = Field(
        150, gt=0, description="maximum requests per second; a busier slice is scaled down"
    )
    trials: int = Field(1, ge=1, description="trials per policy, each with its own seed")
    policies: Names = Field(["FairShare", "Faro-FairSum"], description="policies")
    history_minutes: int = Field(
        0, ge=0, description="recorded minutes before the slice with which forecasts start"
    )
    lost_worker_trial: int | None = Field(
        None,
        ge=0,
        description="trial, from 0, in which a Ray worker is deleted halfway (kind, kubernetes); null: none",
    )
    address: str | None = Field(
        None, description="address of Ray's dashboard; null with backend local"
    )
    serve_address: str | None = Field(
        None, description="address of Ray Serve; null: port 8000 of the same host"
    )

    @field_validator("scale")
    @classmethod
    def _whole_seconds(cls, scale: float) -> float:
        if abs(60 / scale - round(60 / scale)) > 1e-9:
            raise ValueError("must divide 60: 1, 2, 3, 4, 5, 6, 10, ...")
        return scale

    @model_validator(mode="after")
    def _history_exists(self):
        if self.history_minutes > self.first_minute:
            limit = f"live.first_minute={self.first_minute}"
            raise ValueError(f"live.history_minutes={self.history_minutes} must be at most {limit}")
        return self


class Config(Section):
    """All settings of a pipeline run."""

    workload: str = Field(
        SYNTHETIC, description=f"{SYNTHETIC}, {PUBLISHED} (published traces) or a .csv file"
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
        description="cluster of the live stage: local, kind or kubernetes; recorded: a past run; none: skip it",
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
    scale: Scale = Field(Scale(), description="stage 70: mixed models, more jobs, more capacities")
    days: Days = Field(Days(), description="stage 75: judge several days and further workloads")
    replicas: Replicas = Field(Replicas(), description="stage 85: a mix of kinds of replica")
    live: Live = Field(Live(), description="stage 80: send requests to replicas on Ray Serve")

    @field_validator("workload")
    @classmethod
    def _known_or_a_csv_file(cls, workload: str) -> str:
        known = (SYNTHETIC, PUBLISHED)
        if workload not in known and not workload.endswith(TABLES):
            raise ValueError(f"is neither a workload nor a .csv file; {nearest(workload, known)}")
        if workload not in known and _stem(workload) in known:
            raise ValueError(
                f"would overwrite the results of the workload {_stem(workload)}; rename the file"
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
        names = [self.stem, *(world.name for world in self.days.worlds)]
        if repeated := {name for name in names if names.count(name) > 1}:
            problem = f"two workloads have the name {min(repeated)!r}"
            raise ValueError(f"days.worlds: {problem}; the results of one would be lost")
        return self

    def or_middle(self, capacities: list[int] | None) -> list[int]:
        """Return `capacities`. If it is None, return a list with the median of `self.capacities`.

        >>> Config().or_middle(None), Config().or_middle([])
        ([32], [])
        """
        return (
            [sorted(self.capacities)[len(self.capacities) // 2]]
            if capacities is None
            else capacities
        )

    @property
    def stem(self) -> str:
        """Name of the workload's folder under `results`."""
        return self.workload if self.workload in (SYNTHETIC, PUBLISHED) else _stem(self.workload)
