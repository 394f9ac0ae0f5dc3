"""Stage 67: services that are not as stated."""

from pydantic import Field

from faro_pipeline.stages.section import Capacities, Names, Stage


class Misspecification(Stage):
    capacities: Capacities | None = Field(
        [], description="capacities in cores; null: the middle one; []: skip"
    )
    worlds: Names | None = Field(
        None, description="worlds (`studies.misspecification.world.worlds`); null: all"
    )
    trials: int = Field(1, ge=1, description="trials per policy, world and capacity")

    def must_hold(self, config, jobs):
        return [("capacities", jobs, self.capacities or [])]
