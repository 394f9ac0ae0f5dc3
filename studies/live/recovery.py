"""Time until a deleted worker of the cluster is replaced."""

import numpy as np
import pandas as pd

STEP_S = 5  # seconds per row of the table `recovery`


def recovery_s(table: pd.DataFrame) -> pd.Series:
    """Seconds from the deletion of a worker until all workers are ready again, for each trial.

    The index is (policy, trial) if `table` has the column `policy`. A time is NaN if the load ended
    before all workers were ready again. `table` has one row per STEP_S seconds. Its column
    `workers` counts ready workers.
    """
    times = {}
    run = ["policy", "trial"] if "policy" in table else "trial"
    for trial, part in table.groupby(run, sort=False):
        all_workers = part["workers"].max()
        deleted_s = part["deleted_s"].iloc[0]
        after = part[part["second"] >= deleted_s]
        lost = after[after["workers"] < all_workers]["second"]
        back = after[(after["second"] > lost.min()) & (after["workers"] == all_workers)]["second"]
        times[trial] = back.min() - deleted_s if len(lost) else np.nan
    return pd.Series(times, name="recovery_s", dtype=float)
