"""The paper's edition with nothing exchanged but the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from faro_lib.allocate import shrink, solve, solve_hierarchical
from faro_lib.policies.paper import PaperFaro
from faro_lib.utility import DROPS, build_table
from faro_lib.workload.jobs import MINUTE_S


def table_options(policy: PaperFaro, state, observation) -> dict[str, Any]:
    """What `utility.build_table` must know to see what the paper's formulation sees."""
    cores = np.array([job.cores for job in state.jobs])
    full = bool(np.maximum(observation.running, 1) @ cores >= observation.capacity)
    return {
        "latency_model": policy.latency_model,
        "utility": policy.utility,
        "drops": DROPS if policy.objective.startswith("Penalty") else None,
        "cold_start_minutes": 1.0 if policy.predictive and full else 0.0,
        "max_replicas": int(observation.capacity / cores.min()),
    }


@dataclass(frozen=True, slots=True)
class ExactPaperFaro(PaperFaro):
    """Whole numbers, solved exactly, instead of COBYLA."""

    name: str = "Faro-Sum (paper, exact)"

    def _solve(self, state, observation, per_min) -> Any:
        rates_rps = np.maximum(per_min, 1.0)[:, None] / MINUTE_S
        running = np.maximum(observation.running, 1)
        table = build_table(state.jobs, rates_rps, running, **table_options(self, state, observation))
        found = solve(table, observation.capacity, self.objective, current=observation.target)
        return shrink(table, found, observation.capacity) if self.shrink else found


@dataclass(frozen=True, slots=True)
class GroupedPaperFaro(PaperFaro):
    """Hierarchical: between groups first, then inside each (EuroSys'25, section 4.4); nothing is shrunk.

    groups : how many; solver : a name in `allocate.SOLVERS`, used at both levels.
    """

    name: str = "Faro-Sum (paper, hierarchical)"
    groups: int = 10
    solver: str = "nlopt-cobyla"

    def _solve(self, state, observation, per_min) -> Any:
        return solve_hierarchical(
            state.jobs,
            np.maximum(per_min, 1.0)[:, None] / MINUTE_S,
            np.maximum(observation.running, 1),
            observation.capacity,
            groups=min(self.groups, len(state.jobs)),
            objective=self.objective,
            solver=self.solver,
            **table_options(self, state, observation),
        )
