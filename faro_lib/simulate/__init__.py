"""Simulation of the requests on a cluster, by default with the model of EuroSys'25, section 6."""

from faro_lib.simulate.cluster import LIVE, ServingModel, SimulatedCluster
from faro_lib.simulate.draws import TRIAL_SEEDS, Draws, draw
from faro_lib.simulate.run import Run, simulate

__all__ = [
    "LIVE",
    "TRIAL_SEEDS",
    "Draws",
    "Run",
    "ServingModel",
    "SimulatedCluster",
    "draw",
    "simulate",
]
