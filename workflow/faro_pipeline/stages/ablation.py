"""Stage 60: measure the effect of each design step."""

from typing import Literal

from pydantic import Field

from faro_pipeline.stages.section import Capacities, Stage


class Ablation(Stage):
    capacities: Capacities | None = Field(
        None, description="cluster capacities in cores; null: the middle one; []: skip"
    )
    trials: int = Field(1, ge=1, description="trials per step and capacity")
    minutes: int | None = Field(
        120, ge=1, description="minutes of the evaluation day to replay; null: all"
    )
    objective: Literal["Sum", "Fair", "FairSum", "PenaltySum", "PenaltyFairSum"] = Field(
        "FairSum", description="objective to maximise; the paper's: FairSum"
    )

    def must_hold(self, config, jobs):
        return [("capacities", jobs, self.capacities or [])]
