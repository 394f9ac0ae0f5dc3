"""Tables of runs on a Kubernetes node: trials are appended, and recovery from the loss of a worker is measured."""

import numpy as np
import pandas as pd
import pytest

from faro_lib.figures import use_style
from faro_lib.figures.kubernetes import node_caption, on_a_node
from faro_lib.metrics.frames import Tables, add_trial, joined, read_tables, tables_of
from faro_lib.metrics.recovery import recovery_frame, recovery_s
from faro_lib.policies import FairShare
from faro_lib.rayserve.load_generator import DROPPED, FAILED, SERVED, Sent
from faro_lib.simulate import simulate
from faro_lib.workload import Job, Workload

ABOUT = {"ray": "2.60.0", "kubeletVersion": "v1.20.2", "processors": 2}


def sent(outcome, latency_s):
    n = len(outcome)
    return Sent(np.array(outcome, np.int8), np.zeros(n, np.int16), np.array(latency_s, float), np.zeros(n))


def recovery(back_s=20, until_s=40):
    """A load of one request a second; of two workers one is away from second 11 on."""
    due_s = np.arange(until_s, dtype=float)
    outcome = np.where((due_s >= 11) & (due_s < back_s), DROPPED, SERVED)
    states = [
        {"second": s, "workers": 1 if 11 <= s < back_s else 2, "capacity": 4, "replicas": 8} for s in range(until_s)
    ]
    return recovery_frame(due_s, sent(outcome, np.full(until_s, 0.1)), np.full(until_s, 0.5), states, 10.0)


def tables():
    workload = Workload((Job("a"), Job("b")), np.full((2, 3), 60))
    run = simulate(workload, FairShare(), 4, 1)
    of_run = tables_of(run, {"policy": "FairShare", "capacity_cores": 4}, served=1, tick_s=30.0)
    return joined([of_run, Tables(recovery=recovery())])


def test_every_request_is_in_time_or_missed_its_slo_or_was_dropped_or_failed():
    states = [{"second": 0, "workers": 2, "capacity": 8, "replicas": 8}]
    table = recovery_frame(
        np.array([0.0, 1.0, 2.0, 3.0, 7.0]),
        sent([SERVED, SERVED, DROPPED, FAILED, SERVED], [0.1, 0.9, np.nan, np.nan, 0.2]),
        np.full(5, 0.5),
        states,
        2.0,
    )
    assert table[["second", "in_time", "slo_missed", "dropped", "failed"]].to_numpy().tolist() == [
        [0, 1, 1, 1, 1],
        [5, 1, 0, 0, 0],
    ]


def test_recovery_ends_when_as_many_workers_are_ready_as_before():
    table = pd.concat([recovery(20).assign(trial=0), recovery(100).assign(trial=1)])
    back = recovery_s(table)
    assert back[0] == 10
    assert np.isnan(back[1]), "not before the load ended"


def test_trials_are_appended_and_read_back(tmp_path):
    for trial in range(2):
        assert add_trial(tables(), tmp_path, ABOUT) == trial
    recorded = read_tables(tmp_path)
    assert recorded.summary["trial"].tolist() == [0, 1]
    assert (
        set(recorded.decisions["trial"]) == set(recorded.minutes["trial"]) == set(recorded.recovery["trial"]) == {0, 1}
    )
    assert recorded.about == (ABOUT, ABOUT)


def test_a_folder_without_tables_is_refused_with_the_command_that_writes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="a run on Kubernetes"):
        read_tables(tmp_path, "a run on Kubernetes")


def test_the_figure_and_its_caption_show_the_tables(tmp_path):
    add_trial(tables(), tmp_path, ABOUT)
    recorded = read_tables(tmp_path)
    use_style()
    left, right, _ = on_a_node(recorded).axes
    assert [bar.get_height() for bar in left.patches] == recorded.summary["slo_violation_rate"].tolist()
    assert "Kubernetes v1.20.2" in node_caption(recorded)
    assert "after 10 to 10 s" in node_caption(recorded)
    assert right.get_ylabel() == "requests/s"
