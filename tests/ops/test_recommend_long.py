"""The advice for services of very different lengths, confirmed by a long simulation of each job."""

from __future__ import annotations

import numpy as np
import pytest

from faro_lib.simulate import LIVE, SimulatedCluster
from faro_lib.simulate.run import Decisions, evaluate_run
from faro_lib.workload import Workload
from faro_lib.workload.jobs import arrays_of
from faro_lib.workload.readers import read_jobs
from faro_ops.advise.recommend.recommendation import recommend
from faro_ops.advise.recommend.sizing import uniform_draws
from faro_ops.advise.sources.history import history_of

FOUR = """job,slo_s,quantile,service_time_s,service_scv
tiny,0.02,0.99,0.002,0.5
vision,0.6,0.99,0.15,0.1
summarise,20,0.95,5,0.5
agent,160,0.9,40,1
"""
FOUR_RPS = np.array([1200, 20, 0.6, 0.08])


def median_tail_latency_s(jobs, replicas, minutes=240):
    """Median over minutes of each job's simulated tail latency, on these replicas at FOUR_RPS."""
    counts = np.diff(np.floor(60 * FOUR_RPS[:, None] * np.arange(minutes + 1)).astype(int), axis=1)
    workload = Workload(jobs, counts)
    cluster = SimulatedCluster(
        workload, uniform_draws(workload, 3, LIVE), 1000, np.asarray(replicas), LIVE
    )
    cluster.advance(60.0 * minutes)
    cluster.finish()
    run = evaluate_run(
        workload,
        1000,
        cluster.latency_s,
        cluster.minute_edges,
        np.asarray(replicas),
        Decisions(),
        0.0,
    )
    tail_s = run.tail_latency_s[:, 10:minutes]
    return np.array([np.median(row[~np.isnan(row)]) for row in tail_s])


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [13, 15, 27])
def test_the_advice_for_services_of_2_ms_to_40_s_is_confirmed_job_by_job_by_a_long_simulation(
    tmp_path, capacity
):
    (tmp_path / "jobs.csv").write_text(FOUR)
    jobs = read_jobs(tmp_path / "jobs.csv")
    counts = np.diff(np.floor(60 * FOUR_RPS[:, None] * np.arange(61)), axis=1)
    advice = recommend(history_of(jobs, counts), capacity, report=lambda line: None).advice
    simulated_s = median_tail_latency_s(jobs, advice.plan.target)
    slo_s = arrays_of(jobs).slo_s
    close = np.abs(np.log(simulated_s / slo_s)) < 0.1  # so near the SLO that either answer is right
    assert np.all((advice.slo_met == (simulated_s <= slo_s)) | close)
    finite = np.isfinite(simulated_s) & np.isfinite(advice.tail_latency_s)
    np.testing.assert_allclose(advice.tail_latency_s[finite], simulated_s[finite], rtol=0.2)
    one_less_s = median_tail_latency_s(jobs, np.maximum(advice.plan.target - 1, 1))
    for j in range(len(jobs)):
        if advice.reason(j).startswith("one less would miss"):
            assert one_less_s[j] > 0.9 * slo_s[j]
