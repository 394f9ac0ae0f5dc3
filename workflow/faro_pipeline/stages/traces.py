"""Stage 10: the workload. Its settings are those of the generated one."""

from pydantic import Field

from faro_lib.workload.changes import CHANGES, Change
from faro_ops.section import Section


class Synthetic(Section):
    seed: int = Field(1, ge=0, description="seed of the generator")
    jobs: int = Field(10, ge=1, description="inference jobs")
    days: int = Field(10, ge=0, description="training days; the evaluation day follows them")
    minutes: int = Field(360, ge=1, description="minutes in a (downsampled) day")
    change: Change = Field(
        "none",
        description="what earlier days do not foretell: "
        f"{', '.join(CHANGES[:-1])} or {CHANGES[-1]}",
    )
