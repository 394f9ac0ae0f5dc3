"""Stage 45: replicas that several jobs share."""

from typing import Annotated

from pydantic import AfterValidator, Field

from faro_pipeline.stages.section import Capacities, Stage, unique

Models = Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1), AfterValidator(unique)]


class Sharing(Stage):
    capacities: Capacities | None = Field(
        [], description="cluster capacities in cores; null: the middle one; []: skip"
    )
    models: Models = Field([2, 3], description="models per replica, besides 1")
    trials: int = Field(2, ge=1, description="trials per policy and capacity")
    minutes: int | None = Field(None, ge=1, description="minutes of the evaluation day; null: all")

    def must_hold(self, config, jobs):
        return [("capacities", jobs, self.capacities or [])]
