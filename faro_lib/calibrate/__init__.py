"""Which kind of replica explains the latencies of a service, and with which parameters (Bayesian model comparison)."""

from faro_lib.calibrate.calibration import Calibration, calibrate
from faro_lib.calibrate.measurements import FIRST_TOKEN, LATENCY, PER_TOKEN, Measurements

__all__ = ["FIRST_TOKEN", "LATENCY", "PER_TOKEN", "Calibration", "Measurements", "calibrate"]
