"""Tables of runs on a Kubernetes node: trials add up, and the loss of a worker is told second by second."""

import numpy as np
import pandas as pd
import pytest

from faro_lib.figures import use_style
from faro_lib.figures.kubernetes import on_a_node, on_a_node_caption
from faro_lib.live.load import FAILED, SERVED, SHED, Sent
from faro_lib.metrics.cluster import one_run, read, recovery_frame, recovery_s, write
from faro_lib.policies import FairShare
from faro_lib.simulate import simulate
from faro_lib.workload import Job, Workload

ABOUT = {"ray": "2.60.0", "kubeletVersion": "v1.20.2", "processors": 2}


def sent(outcome, latency_s):
    n = len(outcome)
    return Sent(np.array(outcome, np.int8), np.zeros(n, np.int16), np.array(latency_s, float), np.zeros(n))


def recovery(back_s=20, until_s=40):
    """A load of one request a second; of two workers one is away from second 11 on."""
    due_s = np.arange(until_s, dtype=float)
    outcome = np.where((due_s >= 11) & (due_s < back_s), SHED, SERVED)
    states = [
        {"second": s, "workers": 1 if 11 <= s < back_s else 2, "capacity": 4, "replicas": 8} for s in range(until_s)
    ]
    return recovery_frame(due_s, sent(outcome, np.full(until_s, 0.1)), np.full(until_s, 0.5), states, 10.0)


def runs():
    workload = Workload((Job("a"), Job("b")), np.full((2, 3), 60))
    return [one_run(simulate(workload, FairShare(), 4, 1), "FairShare", {"served": 1, "tick_s": 30.0})]


def test_every_request_is_in_time_or_late_or_refused_or_failed():
    states = [{"second": 0, "workers": 2, "capacity": 8, "replicas": 8}]
    table = recovery_frame(
        np.array([0.0, 1.0, 2.0, 3.0, 7.0]),
        sent([SERVED, SERVED, SHED, FAILED, SERVED], [0.1, 0.9, np.nan, np.nan, 0.2]),
        np.full(5, 0.5),
        states,
        2.0,
    )
    assert table[["second", "in_time", "late", "refused", "failed"]].to_numpy().tolist() == [
        [0, 1, 1, 1, 1],
        [5, 1, 0, 0, 0],
    ]


def test_a_lost_worker_is_back_when_as_many_are_ready_as_before():
    table = pd.concat([recovery(20).assign(trial=0), recovery(100).assign(trial=1)])
    back = recovery_s(table)
    assert back[0] == 10
    assert np.isnan(back[1]), "not before the load ended"


def test_trials_add_up_and_are_read_as_they_were_written(tmp_path):
    for trial in range(2):
        assert write(tmp_path, runs(), recovery(), ABOUT) == trial
    tables = read(tmp_path)
    assert tables.summary["trial"].tolist() == [0, 1]
    assert set(tables.decisions["trial"]) == set(tables.minutes["trial"]) == set(tables.recovery["trial"]) == {0, 1}
    assert tables.about == (ABOUT, ABOUT)


def test_a_folder_without_tables_says_what_writes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; recorded runs"):
        read(tmp_path)


def test_the_figure_and_its_caption_are_made_of_the_tables(tmp_path):
    write(tmp_path, runs(), recovery(), ABOUT)
    tables = read(tmp_path)
    use_style()
    left, right, _ = on_a_node(tables).axes
    assert [bar.get_height() for bar in left.patches] == tables.summary["slo_violation_rate"].tolist()
    assert "Kubernetes v1.20.2" in on_a_node_caption(tables)
    assert "after 10 to 10 s" in on_a_node_caption(tables)
    assert right.get_ylabel() == "requests/s"
