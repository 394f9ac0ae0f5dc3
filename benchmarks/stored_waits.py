"""Compute the waits that are stored in faro_lib/queueing/mdc.npz; takes three minutes: python benchmarks/stored_waits.py"""

import numpy as np

from faro_lib.queueing.constant_service import RHO_GRID, STORED_QUANTILES, STORED_SERVERS, mdc_wait_over_service

if __name__ == "__main__":
    rows = {
        f"{q:.6g}": np.array(
            [[mdc_wait_over_service(rho, c, q) for rho in RHO_GRID] for c in range(1, STORED_SERVERS + 1)], np.float32
        )
        for q in STORED_QUANTILES
    }
    np.savez_compressed("faro_lib/queueing/mdc.npz", rho=RHO_GRID, **rows)
