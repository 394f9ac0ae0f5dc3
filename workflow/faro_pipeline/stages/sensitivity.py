"""Stage 65: vary one parameter at a time."""

from typing import ClassVar

from pydantic import Field

from faro_pipeline.stages.section import Compared, Numbers, PositiveNumbers, Stage, WholeTicks


class Sensitivity(Stage):
    registered: ClassVar = {"policies": "policy"}

    trials: int = Field(1, ge=1, description="trials per value and policy")
    capacity: int | None = Field(
        None, ge=1, description="cluster capacity in cores; null: the middle one"
    )
    first_minute: int = Field(
        0, ge=0, description="first minute of the slice of the evaluation day"
    )
    minutes: int = Field(60, ge=1, description="minutes of the slice")
    policies: Compared = Field(
        ["FairShare", "AIAD", "MArk", "HPA", "Faro-Sum"],
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

    def must_hold(self, config, jobs):
        return [("capacity", jobs, [self.capacity] if self.capacity else [])]

    def ranges(self, jobs, days, minutes):
        return [("first_minute", [self.first_minute], 0, minutes - 1)]
