"""Stage 87: ten language-model services of ServeGen."""

from typing import Annotated

from pydantic import AfterValidator, Field

from faro_pipeline.stages.section import Capacities, Stage, unique

Days = Annotated[list[Annotated[int, Field(ge=11, le=14)]], AfterValidator(unique)]
Minutes = Annotated[list[Annotated[int, Field(ge=60, le=1410)]], AfterValidator(unique)]


class Llm(Stage):
    capacities: Capacities = Field(
        [],
        description="replicas, of those in data/recorded-llm/tuning.csv; []: skip",
    )
    days: Days = Field(
        [11],
        min_length=1,
        description="days to judge, 11 to 14; policies were tuned on days 9 and 10",
    )
    starts: Minutes = Field(
        [180, 660, 1140],
        min_length=1,
        description="minutes of a day at which a block of 30 minutes begins",
    )
