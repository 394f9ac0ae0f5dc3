"""Jobs that a limit of a live loop does not touch."""

import numpy as np

from faro_lib.control.limits import Known


def kept_by_others(known: Known) -> np.ndarray:
    """Whether another controller or client scales a job, or Faro holds it, bool (jobs,)."""
    return known.contested | known.guard.leaves() | known.left
