"""Runs on a Kubernetes node: the time until a deleted worker is replaced, and the figure of the
recorded tables.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from faro_lib.figures import use_style
from faro_lib.policies import FairShare
from faro_lib.simulate import simulate
from faro_lib.workload import Job, Workload
from studies.kubernetes.figures import node_caption, on_a_node
from studies.live.recovery import recovery_s
from studies.tables.frames import Tables, read_tables, write_tables
from studies.tables.run_tables import tables_of

ABOUT = {"ray": "2.60.0", "kubeletVersion": "v1.20.2", "processors": 2}


def recovery(back_s=20, trial=0):
    """Forty seconds of load, one row per five seconds; one of two workers is away from second 10 to
    `back_s`.
    """
    second = np.arange(0, 40, 5)
    away = (second > 10) & (second < back_s)
    table = {
        "second": second,
        "in_time": np.where(away, 0, 5),
        "slo_missed": 0,
        "dropped": np.where(away, 5, 0),
    }
    table |= {
        "failed": 0,
        "workers": np.where(away, 1, 2),
        "capacity": 4,
        "replicas": 8,
        "deleted_s": 10.0,
    }
    return pd.DataFrame(table).assign(trial=trial)


def recorded():
    workload = Workload((Job("a"), Job("b")), np.full((2, 3), 60))
    run = simulate(workload, FairShare(), 4, 1)
    of_run = tables_of(run, {"policy": "FairShare", "capacity_cores": 4, "trial": 0})
    return Tables(
        of_run.summary.assign(environment="live"),
        of_run.minutes,
        of_run.decisions,
        recovery=recovery(),
        about=(ABOUT,),
    )


def test_recovery_ends_when_as_many_workers_are_ready_as_before():
    back = recovery_s(pd.concat([recovery(20), recovery(100, trial=1)]))
    assert back[0] == 10
    assert np.isnan(back[1]), "not before the load ended"


def test_recovery_is_told_by_policy_where_there_are_several():
    table = pd.concat(
        [recovery(20).assign(policy="FairShare"), recovery(30).assign(policy="Faro-Sum")]
    )
    assert recovery_s(table).to_dict() == {("FairShare", 0): 10, ("Faro-Sum", 0): 20}


def test_tables_written_as_text_are_read_back(tmp_path):
    write_tables(recorded(), tmp_path, as_text=True)
    pd.testing.assert_frame_equal(read_tables(tmp_path).recovery, recovery(), check_dtype=False)


def test_a_folder_without_tables_is_refused_with_the_command_that_writes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="a run on Kubernetes"):
        read_tables(tmp_path, "a run on Kubernetes")


def test_simulations_recorded_beside_the_runs_are_not_counted_as_runs():
    tables = recorded()
    live = tables.summary.assign(environment="live")
    simulated = live.assign(environment="simulation", slo_violation_rate=0.9)
    beside = replace(
        tables,
        summary=pd.concat([live, simulated]),
        recovery=tables.recovery.assign(policy="FairShare"),
    )
    use_style()
    left, _, _ = on_a_node(beside).axes
    assert [bar.get_height() for bar in left.patches] == live["slo_violation_rate"].tolist()
    assert "1 of 1 trials" in node_caption(beside)


def test_the_figure_and_its_caption_show_the_tables():
    use_style()
    left, right, _ = on_a_node(recorded()).axes
    assert [bar.get_height() for bar in left.patches] == recorded().summary[
        "slo_violation_rate"
    ].tolist()
    assert "Kubernetes v1.20.2" in node_caption(recorded())
    assert "after 10 to 10 s" in node_caption(recorded())
    assert right.get_ylabel() == "requests/s"
