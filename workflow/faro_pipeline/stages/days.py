"""Stage 75: judge policies on several days of this workload and of others."""

from typing import ClassVar

from pydantic import Field

from faro_lib.workload import SYNTHETIC
from faro_ops.section import Section
from faro_pipeline.stages.section import Capacities, Compared, Names, Stage
from faro_pipeline.stages.traces import Synthetic


class World(Section):
    """A workload, besides the configured one, on which the stage compares the policies."""

    name: str = Field(pattern=r"^[\w-]+$", description="its name in figures and tables")
    workload: str = SYNTHETIC
    jobs: str | None = None
    synthetic: Synthetic = Synthetic()
    judged: list[int] | None = Field(None, min_length=1)
    capacities: Capacities = Field(min_length=1)


class Days(Stage):
    registered: ClassVar = {"policies": "policy", "forecasters": "forecaster"}

    judged: list[int] | None = Field(
        [],
        description="days to judge, each with what was known before it; null: the evaluation day; "
        "[]: skip",
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
        description="further workloads, each with name and capacities, and as needed workload, "
        "jobs, synthetic and judged",
    )

    def ranges(self, jobs, days, minutes):
        return [("judged", self.judged or [], 2, days + 1)]
