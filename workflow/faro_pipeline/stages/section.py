"""The base class of the settings of a stage, and the types of settings that stages share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, Field

from faro_lib.workload import Job
from faro_ops.section import Section

Value = TypeVar("Value")
JOB_MINUTE_GB = 35e-6  # simulation, per job and minute, at several hundred requests per minute


def unique(values: list[Value]) -> list[Value]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"has {value!r} more than once")
    return values


def _one_replica_per_job(clusters: list[tuple[int, int]]) -> list[tuple[int, int]]:
    for jobs, replicas in clusters:
        if not 1 <= jobs <= replicas:
            raise ValueError(
                f"has [{jobs}, {replicas}]; a cluster needs at least 1 job and 1 replica per job"
            )
    return clusters


# In the JSON Schema, which has no functions: a list without repetition.
UNIQUE = Field(json_schema_extra={"uniqueItems": True})
Names = Annotated[list[str], Field(min_length=1), AfterValidator(unique), UNIQUE]
# Names of policies. The last policy is compared with the others.
Compared = Annotated[list[str], Field(min_length=2), AfterValidator(unique), UNIQUE]
Capacities = Annotated[
    list[Annotated[int, Field(gt=0, le=1_000_000)]], AfterValidator(unique), UNIQUE
]
Clusters = Annotated[
    list[tuple[int, int]], AfterValidator(_one_replica_per_job), AfterValidator(unique), UNIQUE
]
Numbers = Annotated[list[Annotated[float, Field(ge=0)]], AfterValidator(unique), UNIQUE]
PositiveNumbers = Annotated[list[Annotated[float, Field(gt=0)]], AfterValidator(unique), UNIQUE]
WholeTicks = Annotated[
    list[Annotated[float, Field(gt=0, multiple_of=10)]], AfterValidator(unique), UNIQUE
]
Indices = Annotated[list[Annotated[int, Field(ge=0)]], AfterValidator(unique), UNIQUE]


class Stage(Section):
    """The settings of a stage, and what is checked of them before the first stage starts.

    The methods and `registered` use the settings' names in this section: `policies`, not
    `scale.policies`. `config` has all settings (`settings.Config`). A stage overrides what applies
    to it.
    """

    # Setting with registered names -> kind of name: policy, objective, solver or forecaster.
    registered: ClassVar[dict[str, str]] = {}
    # Files that register what the stage uses.
    own_plugins: ClassVar[Sequence[Path]] = ()
    # The name of the stage, and how to need less memory, where `memory_gb` is not None.
    notebook: ClassVar[str] = ""
    advice: ClassVar[str] = ""

    def must_hold(
        self, config: Any, jobs: tuple[Job, ...]
    ) -> list[tuple[str, tuple[Job, ...], list[int]]]:
        """(setting, jobs, capacities in cores) of clusters that must hold the jobs' minimum."""
        return []

    def ranges(self, jobs: int, days: int, minutes: int) -> list[tuple[str, list[int], int, int]]:
        """(setting, its numbers, lowest and highest accepted number)."""
        return []

    def memory_gb(self, config: Any, jobs: int, days: int, minutes: int) -> float | None:
        """Peak memory beyond that of an idle kernel; None if it need not be checked."""
        return None
