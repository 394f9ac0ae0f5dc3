"""Stage 40: compare solvers, and exact with relaxed formulations."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from faro_pipeline.stages.section import Names, Stage

PAPER = Path(__file__).parents[3] / "studies" / "paper"


class Sloppify(Stage):
    registered: ClassVar = {"objectives": "objective", "solvers": "solver"}
    own_plugins: ClassVar = (PAPER / "continuous.py", PAPER / "reference.py")

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
