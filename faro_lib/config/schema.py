"""The schema of all configuration: every key, its default, what it means, and one clear line for each mistake.

`config/default.yaml` is written from here (`make config`); overlays in config/ and `--config` lay other values over it.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from faro_lib.workload import PUBLISHED, SYNTHETIC

PUBLISHED_JOBS, PUBLISHED_DAYS = 10, 10


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Synthetic(Section):
    """The generated workload."""

    seed: int = Field(1, ge=0, description="everything about the workload follows from it")
    jobs: int = Field(10, ge=1, description="inference jobs")
    days: int = Field(10, ge=0, description="training days; the day after them is judged")
    minutes: int = Field(360, ge=1, description="minutes in a day, as downsampled")


class Forecast(Section):
    """Stage 30: fitting the Bayesian forecaster, and what it is compared with."""

    posterior: str | None = Field(None, description="a fitted posterior (.npz) to use; null: fit one")
    draws: int = Field(200, ge=10, description="posterior draws of each chain")
    tune: int = Field(300, ge=10, description="steps of each chain before them")
    chains: int = Field(2, ge=1, description="chains of the sampler")
    data_stride: int = Field(2, ge=1, description="fit to one minute in so many")
    samples: int = Field(200, ge=10, description="sample paths a forecast that the scores are computed from")
    baselines: list[str] = Field(
        ["persistence", "seasonal", "kalman", "ar"], min_length=1, description="forecasters that it is compared with"
    )

    @field_validator("baselines")
    @classmethod
    def _each_once(cls, baselines: list[str]) -> list[str]:
        return _no_twins(baselines)


class Sloppify(Section):
    """Stage 40: solvers and formulations on real moments of training days."""

    days: int = Field(2, ge=1, description="the last so many training days are decided on")
    windows: int = Field(8, ge=2, description="moments of those days, evenly spread; the paper's size: 72")
    slow_windows: int = Field(1, ge=1, description="moments that the slow solvers get")
    objectives: list[str] = Field(["Sum", "FairSum"], min_length=1, description="what is maximised")
    solvers: list[str] = Field(
        ["exact", "greedy", "convex", "cobyla"], min_length=1, description="who solves every moment"
    )
    job_counts: list[int] = Field([10, 20, 50], min_length=1, description="how many jobs the scaling study has")

    @field_validator("objectives", "solvers")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        return _no_twins(names)


class Ablation(Section):
    """Stage 60: what each step is worth, the paper's steps and then ours."""

    capacities: list[int] | None = Field(
        None, description="cluster sizes; the paper's: [40, 36, 32]; null: the middle one of `capacities`; []: left out"
    )
    trials: int = Field(1, ge=1, description="trials a step and size")
    objective: str = Field("FairSum", description="what is maximised; the published ablation's is FairSum")

    @field_validator("capacities")
    @classmethod
    def _sizes_are_positive(cls, sizes: list[int] | None) -> list[int] | None:
        return sizes and _sizes(sizes)


class Scale(Section):
    """Stage 70: mixed models, more jobs, the curve over cluster sizes."""

    trials: int = Field(1, ge=1, description="trials of everything here but the curve and the largest")
    minutes: int | None = Field(60, ge=1, description="how much of the day the larger workloads have; null: all of it")
    mixed: list[int] | None = Field(
        None,
        description="cluster sizes with ResNet18 in every other job; null: the middle one of `capacities`; []: left out",
    )
    clusters: list[tuple[int, int]] = Field(
        [(10, 32), (20, 70), (100, 320)], description="[jobs, replicas] of larger workloads; []: left out"
    )
    largest: list[tuple[int, int]] = Field(
        [],
        description="[jobs, replicas] of workloads so large that they have a part of the day of their own; []: left out",
    )
    largest_minutes: int | None = Field(60, ge=1, description="that part; null: all of the day")
    largest_policies: list[str] = Field(
        ["FairShare", "Faro-Sum"], min_length=1, description="who competes there, in one trial"
    )
    curve: list[int] = Field([], description="cluster sizes of the curve of lost utility; []: left out")
    curve_trials: int = Field(3, ge=1, description="trials of the curve")
    policies: list[str] = Field(
        ["FairShare", "AIAD", "MArk", "Faro-FairSum (paper)", "Faro-Sum", "Faro-FairSum"],
        min_length=1,
        description="who competes with mixed models and in the curve",
    )

    @field_validator("mixed", "curve")
    @classmethod
    def _sizes_are_positive(cls, sizes: list[int] | None) -> list[int] | None:
        return sizes and _sizes(sizes)

    @field_validator("clusters", "largest")
    @classmethod
    def _a_replica_for_every_job(cls, clusters: list[tuple[int, int]]) -> list[tuple[int, int]]:
        for jobs, replicas in clusters:
            if not 1 <= jobs <= replicas:
                raise ValueError(f"has [{jobs}, {replicas}]; a cluster has at least 1 job and 1 replica for each")
        return _no_twins(clusters)

    @field_validator("policies", "largest_policies")
    @classmethod
    def _each_once(cls, policies: list[str]) -> list[str]:
        return _no_twins(policies)

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.mixed != [] or self.clusters or self.largest or self.curve)


class Sensitivity(Section):
    """Stage 65: where the lead ends, one circumstance at a time; an empty list leaves a circumstance out."""

    trials: int = Field(1, ge=1, description="trials a circumstance and policy")
    replicas: int | None = Field(None, ge=1, description="cluster size; null: the middle one of `capacities`")
    first_minute: int = Field(0, ge=0, description="where the slice of the evaluation day begins")
    minutes: int = Field(60, ge=1, description="length of the slice")
    policies: list[str] = Field(
        ["FairShare", "AIAD", "Faro-FairSum"], min_length=2, description="who competes; the last one leads or does not"
    )
    cold_start_s: list[float] = Field([5, 35, 120], description="seconds until a new replica serves")
    slo_factor: list[float] = Field([2, 4, 8], description="SLO in service times")
    forecast_error: list[float] = Field([0, 0.25, 0.5], description="relative error of an oracle")
    interval_s: list[float] = Field([60, 300], description="seconds between two decisions")
    scv_factor: list[float] = Field([1, 4], description="how much more service times vary than was measured")

    @field_validator("policies")
    @classmethod
    def _each_once(cls, policies: list[str]) -> list[str]:
        return _no_twins(policies)

    @field_validator("cold_start_s", "slo_factor", "forecast_error", "interval_s", "scv_factor")
    @classmethod
    def _not_negative(cls, values: list[float]) -> list[float]:
        for value in values:
            if value < 0:
                raise ValueError(f"has {value:g}; accepted: numbers >= 0")
        return _no_twins(values)

    @field_validator("slo_factor", "interval_s")
    @classmethod
    def _positive(cls, values: list[float]) -> list[float]:
        if 0 in values:
            raise ValueError("has 0; accepted: numbers > 0")
        return values

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return any((self.cold_start_s, self.slo_factor, self.forecast_error, self.interval_s, self.scv_factor))


class Live(Section):
    """Stage 80: real requests on real replicas of Ray Serve; where, says `backend`."""

    jobs: list[int] | None = Field(
        None, min_length=1, description="which jobs of the workload, counted from 0; null: the first three"
    )
    replicas: int = Field(8, ge=1, description="cluster size, in replicas of one core")
    first_minute: int = Field(0, ge=0, description="where the slice of the evaluation day begins")
    minutes: int = Field(3, ge=2, description="length of the slice")
    scale: float = Field(2, gt=0, description="seconds of the trace in a second of wall time; it must divide 60")
    tick_s: float = Field(30, ge=30, description="wall seconds between two decisions")
    max_ongoing_requests: int = Field(
        10, ge=1, description="requests that a replica may hold, the one in service included"
    )
    max_rps: float = Field(150, gt=0, description="requests a second; of a slice that asks for more a share is sent")
    trials: int = Field(1, ge=1, description="trials a policy, each with its own seed")
    policies: list[str] = Field(["FairShare", "Faro-FairSum"], min_length=1, description="who competes")
    address: str | None = Field(None, description="Ray's dashboard, http://host:8265; backend local starts its own")
    serve_address: str | None = Field(None, description="where its applications are; null: port 8000 of the same host")

    @field_validator("jobs")
    @classmethod
    def _different_jobs(cls, jobs: list[int] | None) -> list[int] | None:
        for job in jobs or []:
            if job < 0:
                raise ValueError(f"has {job}; jobs are counted from 0")
        return jobs and _no_twins(jobs)

    @field_validator("scale")
    @classmethod
    def _whole_seconds(cls, scale: float) -> float:
        if abs(60 / scale - round(60 / scale)) > 1e-9:
            raise ValueError("must divide 60: 1, 2, 3, 4, 5, 6, 10, ...")
        return scale

    @field_validator("policies")
    @classmethod
    def _each_once(cls, policies: list[str]) -> list[str]:
        return _no_twins(policies)

    @model_validator(mode="after")
    def _a_replica_for_every_job(self):
        if self.replicas < len(self.jobs or [0]):
            raise ValueError(f"live.replicas={self.replicas} are fewer than its {len(self.jobs or [])} jobs")
        return self


class Config(Section):
    """Everything that `snakemake` can be told."""

    workload: str = Field(SYNTHETIC, description=f"{SYNTHETIC}, {PUBLISHED} (the published traces), or a .csv file")
    jobs: str | None = Field(None, description="a .csv or .yaml table of jobs for it; null: the defaults of every job")
    results: str = Field("results", min_length=1, description="results/<workload>/ is written here")
    plugins: list[str] = Field([], description="your files that register a policy, forecaster, objective or solver")
    raw: str = Field("data/raw", min_length=1, description="where fetched traces lie")
    backend: Literal["none", "local", "kind", "kubernetes"] = Field("local", description="where the live stage runs")
    capacities: list[int] = Field([36, 32, 16], min_length=1, description="cluster sizes in replicas of one core")
    trials: int = Field(2, ge=1, description="trials a policy and size, each with its own seed; the paper ran 5")
    minutes: int | None = Field(None, ge=1, description="how much of the evaluation day is replayed; null: all of it")
    policies: list[str] = Field(
        ["FairShare", "Oneshot", "AIAD", "Faro-Sum"], min_length=1, description="who competes, in the figures' order"
    )
    synthetic: Synthetic = Field(Synthetic(), description="the generated workload")
    forecast: Forecast = Field(Forecast(), description="the Bayesian forecaster, fitted on the training days")
    sloppify: Sloppify = Field(Sloppify(), description="solvers and formulations compared")
    ablation: Ablation = Field(Ablation(), description="what each step is worth")
    sensitivity: Sensitivity = Field(Sensitivity(), description="where the lead ends")
    scale: Scale = Field(Scale(), description="mixed models, more jobs, more sizes")
    live: Live = Field(Live(), description="real requests on real replicas")

    @field_validator("workload")
    @classmethod
    def _a_workload_is_named_or_a_file(cls, workload: str) -> str:
        named = (SYNTHETIC, PUBLISHED)
        if workload in named:
            return workload
        if Path(workload).suffix != ".csv":
            close = difflib.get_close_matches(workload, named, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"is unknown; {hint}accepted: {SYNTHETIC}, {PUBLISHED}, or the path of a .csv file")
        if Path(workload).stem in named:
            raise ValueError(f"would be written over results of the workload {Path(workload).stem}; rename the file")
        return workload

    @field_validator("jobs")
    @classmethod
    def _a_table_of_jobs(cls, jobs: str | None) -> str | None:
        if jobs is not None and Path(jobs).suffix not in (".csv", ".yaml", ".yml"):
            raise ValueError("is not a table of jobs; accepted: the path of a .csv or .yaml file")
        return jobs

    @field_validator("policies")
    @classmethod
    def _each_once(cls, policies: list[str]) -> list[str]:
        return _no_twins(policies)

    @field_validator("capacities")
    @classmethod
    def _sizes_are_positive(cls, sizes: list[int]) -> list[int]:
        return _sizes(sizes)

    @model_validator(mode="after")
    def _a_replica_for_every_job(self):
        jobs = {SYNTHETIC: self.synthetic.jobs, PUBLISHED: PUBLISHED_JOBS}.get(self.workload, 1)
        for key, sizes in {
            "capacities": self.capacities,
            "ablation.capacities": self.ablation.capacities,
            "scale.mixed": self.scale.mixed,
            "scale.curve": self.scale.curve,
            "sensitivity.replicas": [self.sensitivity.replicas] if self.sensitivity.replicas else [],
        }.items():
            if sizes and min(sizes) < jobs:
                raise ValueError(f"{key}: {min(sizes)} replicas are fewer than the {jobs} jobs of {self.workload}")
        if self.live.jobs and Path(self.workload).suffix != ".csv" and max(self.live.jobs) >= jobs:
            raise ValueError(f"live.jobs has {max(self.live.jobs)}; {self.workload} has jobs 0 to {jobs - 1}")
        return self

    def or_middle(self, sizes: list[int] | None) -> list[int]:
        """`capacities`, or where it is None the middle one of the cluster sizes.

        >>> Config().or_middle(None), Config().or_middle([])
        ([32], [])
        """
        return (
            sorted(self.capacities)[len(self.capacities) // 2 : len(self.capacities) // 2 + 1]
            if sizes is None
            else sizes
        )

    @property
    def stem(self) -> str:
        """Name of the workload, and of its folder under results."""
        return self.workload if self.workload in (SYNTHETIC, PUBLISHED) else Path(self.workload).stem


def _sizes(sizes: list[int]) -> list[int]:
    for size in sizes:
        if size < 1:
            raise ValueError(f"has {size}; a cluster has at least 1 replica")
    return _no_twins(sizes)


def _no_twins(values: list) -> list:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"has {value!r} more than once")
    return values
