"""The smoke run of the README, without a network, reproduces the stored tables except times."""

import os
from pathlib import Path

import pandas as pd
import pytest
from checkouts import reader_checkout, typed
from network import cut, cut_off

GOLDEN = Path(__file__).parent / "golden"
TIMES = {"decision_ms_p50", "decision_ms_p99", "wall_s", "seconds", "fit_s", "predict_ms"}
# Sums of floats may differ in the last digits between processors; counts and choices may not.
RELATIVE = 1e-6
TABLES = {
    "simulate/summary.csv": ["policy", "capacity_cores", "trial"],
    "simulate/limit.csv": ["capacity_cores", "trial"],
    "forecast/scores.csv": ["forecaster", "job"],
    "queueing/half_against_exact.csv": ["rho", "servers"],
}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The folder of the results, which the last line of the output names.

    The variable FARO_SMOKE_RUN names the results of a run that the caller has made already in the
    same way, without a network.
    """
    if made := os.environ.get("FARO_SMOKE_RUN"):
        return Path(made)
    folder = reader_checkout(tmp_path_factory.mktemp("smoke"))
    said = typed([*cut(), "make", "figures", "CONFIG=config/smoke.yaml"], folder)
    report = Path(said.splitlines()[-1])
    assert report == (folder / "results/synthetic/report.html").resolve()
    return report.parent


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_the_smoke_run_reproduces_the_stored_tables(smoke, table):
    kept = pd.read_csv(GOLDEN / table.replace("/", "-"))
    came = pd.read_csv(smoke / table)
    columns = [column for column in kept if column not in TIMES]
    assert [column for column in came if column not in TIMES] == columns
    kept = kept[columns].sort_values(TABLES[table]).reset_index(drop=True)
    came = came[columns].sort_values(TABLES[table]).reset_index(drop=True)
    pd.testing.assert_frame_equal(came, kept, rtol=RELATIVE, check_dtype=False)


@pytest.mark.slow
def test_the_smoke_run_ends_in_a_page_with_every_figure(smoke):
    page = (smoke / "report.html").read_text()
    figures = sorted((smoke / "figures").glob("*.png"))
    assert len(figures) >= 8
    assert page.count("data:image/png;base64,") == len(figures)
    assert page.rstrip().endswith("</html>")


@pytest.mark.slow
def test_the_smoke_run_needs_no_network(smoke):
    cut_off()  # where the network cannot be cut, the run had one
    assert (smoke / "report.html").stat().st_size > 100_000
