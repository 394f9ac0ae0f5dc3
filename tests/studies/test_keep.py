"""Tables of a finished run are copied into data/, where pages and tests read them."""

import pandas as pd
import pytest

from studies.tables.keep import PUBLISHED, main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an empty data/ and the results of a run."""
    for name in ("published-run", "wide-run", "recorded-sharing"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)


def test_of_the_solvers_only_decisions_for_sum_with_ten_jobs_are_kept(folder):
    for source in PUBLISHED.values():
        write(folder / "results" / source, a=[1])
    windows = ["day 9", "day 9, enlarged", "day 9"]
    solvers = folder / "results" / PUBLISHED["solvers"]
    write(solvers, objective=["Sum", "Sum", "Fair"], window=windows, a=[1, 2, 3])
    assert main("published", "results") == 0
    assert {path.stem for path in (folder / "data/published-run").iterdir()} == set(PUBLISHED)
    assert pd.read_csv("data/published-run/solvers.csv")["a"].tolist() == [1]


def test_each_workload_of_the_wide_run_has_a_file(folder):
    for world in ("azure-2019", "doubling"):
        write(folder / f"results/days/{world}/paired.csv", a=[1])
    assert main("wide", "results") == 0
    assert sorted(path.name for path in (folder / "data/wide-run").iterdir()) == [
        "azure-2019.csv",
        "doubling.csv",
    ]


def test_a_run_that_is_not_known_is_one_line_with_those_that_are(capsys):
    assert main("wild", "results") == 2
    assert capsys.readouterr().err == (
        "wild: no such run; accepted: published, wide, kubernetes, kind_pool, live\n"
    )
