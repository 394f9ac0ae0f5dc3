"""`faro recommend --sharing`: the capacity that the SLOs need if jobs share replicas."""

from dataclasses import replace

import numpy as np
import pytest

from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched
from faro_ops.advise.recommend.recommendation import recommend
from faro_ops.advise.recommend.savings import groups, sharing
from faro_ops.advise.sources.history import history_of
from faro_ops.cli.recommend import _text

JOBS = tuple(Job(name) for name in ("a", "b", "c"))


@pytest.fixture(scope="module")
def history():
    """Three services whose loads swing at different times, on two equal days of 45 minutes."""
    minute = np.arange(45)
    phases = 2 * np.pi * np.arange(3)[:, None] / 3
    counts = np.rint(400 + 350 * np.sin(2 * np.pi * minute / 45 + phases)).astype(int)
    return history_of(JOBS, counts, earlier=counts[None, None])


@pytest.fixture(scope="module")
def recommendation(history):
    return recommend(history, with_sharing=True, forecaster="seasonal", report=lambda _: None)


@pytest.mark.slow
def test_shared_replicas_need_fewer_cores(recommendation):
    cores = {one.models: one.cores for one in recommendation.savings}
    assert sorted(cores) == [1, 2, 3]
    assert cores[3] <= cores[2] < cores[1]


@pytest.mark.slow
def test_the_table_has_a_row_for_each_number_of_models(recommendation):
    text = _text(recommendation)
    table = text[text.index("if jobs shared replicas") :]
    rows = [line.split() for line in table.splitlines() if line.strip()[:1].isdigit()]
    alone = recommendation.savings[0].cores
    assert rows == [
        [str(one.models), str(one.cores), f"{1 - one.cores / alone:.0%}"]
        for one in recommendation.savings
    ]
    assert recommendation.to_dict()["sharing"][0]["models"] == 1


def test_only_replicas_that_are_alike_could_be_shared():
    batched = replace(JOBS[0], name="d", replica=Batched(4, base_s=0.1))
    large = [replace(JOBS[0], name=name, cores=2.0) for name in ("e", "f")]
    jobs = (*JOBS, batched, *large)
    assert groups(jobs) == [[0, 1, 2], [4, 5]]
    shared = sharing(jobs, 3)
    assert [job.pool for job in shared] == ["shared 1"] * 3 + [""] + ["shared 2"] * 2
    assert [job.models_per_replica for job in shared] == [3, 3, 3, None, 2, 2]


def test_without_two_alike_it_fails_before_the_simulation(history):
    unlike = history_of((JOBS[0],), history.today[:1], earlier=history.traces.train[:, :, :1])
    with pytest.raises(ValueError, match="no two jobs could share replicas"):
        recommend(unlike, with_sharing=True, report=pytest.fail)
