"""Write to an object that others change, too.

A write names the version that it replaces, and the API server answers 409 (conflict) if there is a
newer one. Each pod that starts changes the status of its Deployment, an HPA changes its own every
15 s, and a controller that of its FaroPlan at every tick, so a write may meet a few conflicts.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from faro_ops.operate.kube.client import ApiError

CONFLICT = 409  # HTTP status
ATTEMPTS = 10
# The second attempt follows at once. This is the longest pause before the third; it then grows.
PAUSE_S = 0.1
Read = TypeVar("Read")
Result = TypeVar("Result")


def after_conflicts(
    write: Callable[[Read], Result], current: Read, read: Callable[[], Read], purpose: str
) -> Result:
    """The result of `write(current)`; after each conflict, of `write(read())`.

    `read` raises an error if the object has changed in such a way that it must not be written. If
    ATTEMPTS are not enough, ApiError 409 says that the object changes faster than `purpose`, such
    as "it can be scaled".
    """
    for attempt in range(ATTEMPTS):
        try:
            return write(current)
        except ApiError as error:
            if error.status != CONFLICT:
                raise
        time.sleep(random.uniform(0, PAUSE_S * attempt))
        current = read()
    raise ApiError(CONFLICT, f"it changes faster than {purpose}")
