"""Stage 85: the serial profile, the policy that assumes serial replicas, and the paired table."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from checkouts import ROOT
from faro_pipeline.settings import load

from faro_lib.policies import FairShare
from faro_lib.protocol import Assuming
from faro_lib.workload.replicas import SERIAL
from faro_lib.workload.synthetic import synthetic
from studies.replicas.figures import finding
from studies.replicas.run import (
    ASSUMED,
    LEADER,
    SERVICES,
    compare,
    mixed,
    paired,
    serial_profile,
)


def test_the_jobs_of_the_mix_need_as_many_replicas_as_before():
    traces = synthetic(jobs=4, days=2, minutes=60)
    busy_s = np.array([job.busy_s for job in mixed(traces).jobs])
    np.testing.assert_allclose(
        mixed(traces).evaluation[0].mean(axis=1) * busy_s,
        traces.evaluation[0].mean(axis=1) * 0.154,
        rtol=0.01,
    )


def test_a_serial_profile_takes_the_latency_of_a_request_alone_for_its_service_time():
    # A batch of one after its wait; a prompt of 300 tokens and an iteration; 60 iterations of one
    # sequence.
    expected = {
        "classify": 0.154,
        "images": 0.1 + 0.6,
        "chat": 0.0205 + 300e-5,
        "summaries": 60 * 0.0205 + 300e-5,
    }
    for name, job in SERVICES.items():
        profile = serial_profile(job)
        assert profile.replica == SERIAL
        assert profile.service_time_s == pytest.approx(expected[name], rel=0.05)
    assert serial_profile(SERVICES["summaries"]).service_scv == pytest.approx(0.25, rel=0.15)


def test_a_policy_that_assumes_other_jobs_never_sees_the_true_ones():
    seen = []

    class Looking(FairShare):
        def start(self, jobs):
            seen.append(jobs)
            return super().start(jobs)

    true, assumed = (SERVICES["images"],), (serial_profile(SERVICES["images"]),)
    Assuming(Looking(), assumed, "x").start(true)
    assert seen == [assumed]


def test_the_losses_of_the_services_add_up_to_the_total_though_some_minutes_have_no_requests(
    monkeypatch,
):
    traces = synthetic(jobs=2, days=1, minutes=6)
    jobs = tuple(replace(SERVICES["classify"], name=name) for name in traces.names)
    idle = replace(traces, jobs=jobs, evaluation=traces.evaluation * (np.arange(6) % 3 > 0))
    monkeypatch.setattr("studies.replicas.run.policies_of", lambda *_: {"FairShare": FairShare()})
    runs = compare(idle, [2], trials=1, report=lambda line: None)
    np.testing.assert_allclose(runs["lost_classify"], runs["lost_utility"])


def test_jobs_with_their_own_service_times_also_need_as_many_replicas_as_before():
    traces = synthetic(jobs=4, days=2, minutes=60)
    own = replace(
        traces, jobs=tuple(replace(job, model=job.name, service_time_s=0.05) for job in traces.jobs)
    )
    busy_s = np.array([job.busy_s for job in mixed(own).jobs])
    np.testing.assert_allclose(
        mixed(own).evaluation[0].mean(axis=1) * busy_s,
        traces.evaluation[0].mean(axis=1) * 0.05,
        rtol=0.02,
    )


@pytest.mark.parametrize(("configured", "used"), [("bayes", "auto"), ("kalman", "kalman")])
def test_a_posterior_of_the_published_counts_does_not_forecast_the_scaled_ones(configured, used):
    rule = (ROOT / "workflow" / "rules" / "replicas.smk").read_text()
    (expression,) = re.findall(r"^ *forecaster=(.*),$", rule, re.MULTILINE)
    assert eval(expression, {"CONFIG": load({"forecaster": configured})}) == used


def test_differences_are_paired_by_trial():
    runs = pd.DataFrame(
        [
            ("HPA", 10, 0, 3.0),
            ("HPA", 10, 1, 4.0),
            (ASSUMED, 10, 0, 2.0),
            (ASSUMED, 10, 1, 3.5),
            (LEADER, 10, 0, 1.0),
            (LEADER, 10, 1, 2.0),
        ],
        columns=["policy", "capacity_cores", "trial", "lost_utility"],
    )
    table = paired(runs).set_index("policy")
    assert table["difference"].to_dict() == {"HPA": 2.0, ASSUMED: 1.25, LEADER: 0.0}
    assert table.loc["HPA", "half"] == 0
    assert table.loc[ASSUMED, "ratio"] == pytest.approx(1.5 / 2.75)
    assert "loses 1.50 with the true kinds of replica, 2.75 if it assumes serial ones" in finding(
        table.reset_index()
    )
