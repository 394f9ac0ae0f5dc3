"""Stage 30: fit the Bayesian forecaster and compare it with other forecasters."""

from typing import ClassVar

from pydantic import Field

from faro_pipeline.stages.section import Names, Stage

ROW_GB = 7e-6  # per chain and training row (one minute of one job)


class Forecast(Stage):
    registered: ClassVar = {"baselines": "forecaster"}
    notebook: ClassVar = "30_forecasting"
    advice: ClassVar = "lower forecast.chains, or name a fitted forecast.posterior"

    posterior: str | None = Field(
        None, description="a fitted posterior (.npz) to use; null: fit one"
    )
    fit_minutes: int = Field(
        1500, ge=100, description="training minutes per job in the fit, chosen at random"
    )
    draws: int = Field(1000, ge=10, description="posterior draws per chain")
    tune: int = Field(200, ge=10, description="tuning steps per chain")
    chains: int = Field(4, ge=1, description="chains of the sampler")
    depth: int = Field(
        3, ge=1, le=10, description="a trajectory of the sampler has at most 2^depth - 1 steps"
    )
    samples: int = Field(200, ge=10, description="sample paths per forecast, for the scores")
    baselines: Names = Field(
        ["persistence", "seasonal", "kalman", "structural", "ar"],
        description="forecasters to compare",
    )

    def memory_gb(self, config, jobs, days, minutes):
        if self.posterior is not None:
            return 0.0
        rows = jobs * min(days * minutes, self.fit_minutes)
        return ROW_GB * rows * self.chains
