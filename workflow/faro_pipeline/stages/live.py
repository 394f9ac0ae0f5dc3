"""Stage 80: send requests to replicas on Ray Serve, or show a recorded run."""

from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from faro_pipeline.stages.section import Indices, Names, Stage


class Live(Stage):
    registered: ClassVar = {"policies": "policy"}
    notebook: ClassVar = "80_live"
    advice: ClassVar = "lower live.capacity, or set backend=none"

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
        description="trial, from 0, in which a Ray worker is deleted halfway (kind, kubernetes); "
        "null: none",
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

    def must_hold(self, config, jobs):
        if config.backend in ("none", "recorded"):
            return []
        numbers = self.jobs or [0, 1, 2]
        served = tuple(jobs[number] for number in numbers if number < len(jobs))
        return [("capacity", served or jobs[:1], [self.capacity])]

    def ranges(self, jobs, days, minutes):
        return [
            ("jobs", self.jobs or [], 0, jobs - 1),
            ("first_minute", [self.first_minute], 0, minutes - 1),
        ]

    def memory_gb(self, config, jobs, days, minutes):
        from faro_ops.free_memory import ray_gb

        return ray_gb(self.capacity) if config.backend == "local" else None
