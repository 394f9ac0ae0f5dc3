"""Checks before the first stage, and the exit codes of the pipeline's commands."""

from __future__ import annotations

import json
import os

import pytest
from checkouts import ROOT, write_notebook
from faro_pipeline import __main__ as commands
from faro_pipeline.check import KERNEL_GB, check, needed_gb
from faro_pipeline.derived import PUBLISHED_DAYS
from faro_pipeline.settings import load
from forecast_worlds import ar1_posterior

from faro_lib.forecast import save_posterior
from faro_lib.workload.synthetic import synthetic

DAY = "minute,job,requests\n0,a,5\n0,b,5\n1,a,5\n1,b,5\n"
# A table of jobs in which each of ten jobs needs three replicas.
THREE_EACH = "job,min_replicas\n" + "".join(f"job{number},3\n" for number in range(10))
TWO_DAYS = "minute,job,requests,day\n" + "".join(
    f"{minute},{job},5,{day}\n" for day in (1, 2) for minute in (0, 1) for job in "ab"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with nothing but the list of published data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sources.yaml").write_bytes((ROOT / "data" / "sources.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(**settings) -> int:
    return check(load(settings))


class TestTheTrainingDays:
    def test_of_the_synthetic_workload_are_its_settings(self, folder):
        assert checked(synthetic={"days": 3}) == 3

    def test_of_the_published_traces_are_known_before_they_are_fetched(self, folder):
        assert checked(workload="faro-10jobs") == PUBLISHED_DAYS

    def test_of_a_file_are_all_but_its_last(self, folder):
        (folder / "two.csv").write_text(TWO_DAYS)
        assert checked(workload="two.csv", capacities=[4]) == 1


def test_a_kind_of_replica_that_the_stages_do_not_simulate_is_refused(folder):
    (folder / "two.csv").write_text(TWO_DAYS)
    kind = (
        "{kind: disaggregated, alpha_s: 0.03, beta_s: 0.001, gamma_s: 0.0001, max_sequences: 3, "
        "output_tokens: 8, prompt_tokens: 200, link_gbps: 400, kv_bytes_per_token: 1000}"
    )
    (folder / "jobs.yaml").write_text(f"- {{job: a, replica: {kind}}}\n- {{job: b}}\n")
    with pytest.raises(ValueError, match="job 'a': only `faro recommend` and `faro simulate` sim"):
        checked(workload="two.csv", jobs="jobs.yaml", capacities=[4])


CLUSTERS = [
    (
        {"ablation": {"capacities": [5, 3]}},
        "ablation.capacities: capacity=3 cores cannot hold the minimum of 2 jobs, 4",
    ),
    ({"sensitivity": {"capacity": 3}}, "sensitivity.capacity: capacity=3 cores cannot hold"),
    ({"scale": {"mixed": [3]}}, "scale.mixed: capacity=3 cores cannot hold"),
    ({"scale": {"curve": [8, 3]}}, "scale.curve: capacity=3 cores cannot hold"),
    (
        {"replicas": {"capacities": [1]}},
        "replicas.capacities: capacity=1 cores cannot hold the minimum of 2 jobs, 2",
    ),
    ({"backend": "local", "live": {"capacity": 3}}, "live.capacity: capacity=3 cores cannot hold"),
    (
        {"backend": "local", "live": {"capacity": 2, "jobs": [1]}},
        "live.capacity: capacity=2 cores cannot hold the minimum of 1 jobs, 3",
    ),
]
RANGES = [
    ({"live": {"jobs": [0, 2]}}, "live.jobs: 2 is outside 0 to 1"),
    ({"live": {"first_minute": 2}}, "live.first_minute: 2 is outside 0 to 1"),
    ({"sensitivity": {"first_minute": 2}}, "sensitivity.first_minute: 2 is outside 0 to 1"),
    ({"days": {"judged": [1, 3]}}, "days.judged: 1 is outside 2 to 3"),
    ({"days": {"judged": [2, 4]}}, "days.judged: 4 is outside 2 to 3"),
    (
        {"forecast": {"baselines": ["ar", "bayes"]}},
        "forecast.baselines: bayes has no fitted posterior here",
    ),
    ({"days": {"forecasters": ["bayes"]}}, "days.forecasters: bayes has no fitted posterior here"),
]


@pytest.fixture
def three_days(folder):
    """Settings for two jobs that need one and three replicas, on three days of two minutes."""
    (folder / "mine.csv").write_text(
        TWO_DAYS + "".join(f"{m},{job},5,3\n" for m in (0, 1) for job in "ab")
    )
    (folder / "jobs.csv").write_text("job,min_replicas\na,1\nb,3\n")
    return {"workload": "mine.csv", "jobs": "jobs.csv", "capacities": [4]}


class TestWhatDoesNotFitTheWorkload:
    @pytest.mark.parametrize(("settings", "told"), [*CLUSTERS, *RANGES])
    def test_is_one_line_before_anything_runs(self, settings, told, three_days):
        with pytest.raises(ValueError) as refused:
            checked(**three_days, **settings)
        assert str(refused.value).startswith(f"config: {told}")
        assert "\n" not in str(refused.value)

    def test_are_several_lines_if_there_are_several_mistakes(self, three_days):
        with pytest.raises(ValueError) as refused:
            checked(**three_days, scale={"mixed": [3], "curve": [3]}, days={"judged": [7]})
        keys = [line.split(": ")[1] for line in str(refused.value).splitlines()]
        assert keys == ["scale.mixed", "scale.curve", "days.judged"]

    def test_may_be_in_a_stage_that_is_off_or_needs_more_days(self, folder, three_days):
        (folder / "two.csv").write_text(TWO_DAYS)
        assert checked(**three_days, backend="none", live={"capacity": 3}) == 2
        small = {"live": {"capacity": 1}, "scale": {"mixed": [1]}}
        assert checked(workload="two.csv", capacities=[4], **small) == 1

    def test_concerns_the_generated_and_the_published_workload_too(self, folder):
        too_small = r"^config: ablation.capacities: capacity=9 cores .* 10 jobs, 10 cores$"
        with pytest.raises(ValueError, match=too_small):
            checked(ablation={"capacities": [9]})
        with pytest.raises(ValueError, match=r"^config: live.jobs: 10 is outside 0 to 9"):
            checked(workload="faro-10jobs", live={"jobs": [10], "capacity": 1})
        (folder / "jobs.csv").write_text(THREE_EACH)
        too_small = r"^config: live.capacity: capacity=8 cores .* 3 jobs, 9 cores$"
        with pytest.raises(ValueError, match=too_small):
            checked(jobs="jobs.csv", capacities=[32], backend="kind")
        # A recorded run serves no job of this workload.
        assert checked(jobs="jobs.csv", capacities=[32]) > 1

    def test_is_the_bayesian_forecaster_for_a_single_training_day(self, folder):
        assert checked(forecaster="bayes", synthetic={"days": 2}) == 2
        refused = r"^config: forecaster: bayes has no fitted posterior here"
        with pytest.raises(ValueError, match=refused):
            checked(forecaster="bayes", synthetic={"days": 1})


class TestItRefuses:
    def test_a_policy_that_a_single_day_leaves_nothing_to_learn_from(self, folder):
        (folder / "day.csv").write_text(DAY)
        refused = r"Faro-Sum learns from earlier days, .* that do not learn: FairShare"
        with pytest.raises(ValueError, match=refused):
            checked(workload="day.csv", capacities=[4], policies=["FairShare", "Faro-Sum"])
        assert checked(workload="day.csv", capacities=[4], policies=["FairShare"]) == 0

    def test_fewer_replicas_than_the_table_of_jobs_asks_for(self, folder):
        (folder / "jobs.csv").write_text(THREE_EACH)
        refused = "capacity=29 cores cannot hold the minimum of 10 jobs, 30 cores"
        with pytest.raises(ValueError, match=refused):
            checked(jobs="jobs.csv", capacities=[36, 29])

    def test_a_file_where_the_results_should_go(self, folder):
        (folder / "results").write_text("mine")
        with pytest.raises(NotADirectoryError):
            checked()

    def test_a_posterior_that_does_not_exist(self, folder):
        with pytest.raises(FileNotFoundError, match=r"none\.npz"):
            checked(forecast={"posterior": "none.npz"})

    def test_a_posterior_of_other_training_days(self, folder):
        fitted = synthetic(seed=1, jobs=4, days=2, minutes=120)
        save_posterior(ar1_posterior(day_minutes=120, traces=fitted), "fitted.npz")
        days = {"jobs": 4, "days": 2, "minutes": 120}
        assert checked(forecast={"posterior": "fitted.npz"}, synthetic=days | {"seed": 1}) == 2
        refused = "posterior of job 'job0' was fitted to other training days"
        with pytest.raises(ValueError, match=refused):
            checked(forecast={"posterior": "fitted.npz"}, synthetic=days | {"seed": 2})

    def test_published_files_with_another_content(self, folder):
        (folder / "data" / "raw").mkdir()
        (folder / "data" / "raw" / "input.json").write_text("{}")
        refused = r"input\.json: SHA-256 \w+ is not \w+; remove the file to fetch it again"
        with pytest.raises(ValueError, match=refused):
            checked(workload="faro-10jobs")

    def test_names_that_nobody_registered_all_at_once_with_the_nearest(self, folder):
        with pytest.raises(ValueError) as refused:
            checked(
                policies=["FairShar"],
                forecast={"baselines": ["kalmann"]},
                sloppify={"objectives": ["Sun"]},
            )
        lines = str(refused.value).splitlines()
        assert [line.split(": ")[1] for line in lines] == [
            "policies",
            "sloppify.objectives",
            "forecast.baselines",
        ]
        assert all("did you mean" in line for line in lines)


def test_without_a_limit_the_largest_cluster_needs_the_memory_of_whole_days():
    config = load({"scale": {"largest": [(1000, 3200)], "largest_minutes": None}})
    short = needed_gb(config, jobs=10, days=10, minutes=60)["70_scale"]
    long = needed_gb(config, jobs=10, days=10, minutes=360)["70_scale"]
    assert long - KERNEL_GB == pytest.approx(6 * (short - KERNEL_GB))


class TestTheCommandOfARule:
    @pytest.fixture(autouse=True)
    def own_environment(self, monkeypatch):
        monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(self, folder, code, **parameters):
        write_notebook(folder / "stage.ipynb", code, "results = ''\na = 1")
        (folder / ".snakemake").mkdir(exist_ok=True)
        output, log = folder / "out" / "notebooks" / "stage.ipynb", folder / "out" / "stage.log"
        status = commands.main(
            "notebook", str(folder / "stage.ipynb"), str(output), json.dumps(parameters), str(log)
        )
        return status, output, log

    def test_the_notebook_gets_the_folder_of_its_output_as_results(self, folder):
        status, output, log = self.run(
            folder, "print('into', results, a)", results="elsewhere", a=2
        )
        assert status == 0
        assert output.exists()
        assert f"into {folder / 'out'} 2" in log.read_text()

    def test_a_failure_is_printed_and_kept_to_be_repeated_at_the_end(self, folder, capsys):
        status, output, _ = self.run(folder, "raise ValueError('minutes=3 is odd')")
        assert status == 2
        assert not output.exists()
        message = capsys.readouterr().err.splitlines()[-1]
        assert "minutes=3 is odd" in message
        assert (folder / ".snakemake" / "errors").read_text() == message + "\n"


class TestFetching:
    def test_a_name_that_is_not_on_the_list_is_one_line(self, folder, capsys):
        assert commands.main("fetch", "faro-10job") == 2
        said = capsys.readouterr().err
        hint = "no entry 'faro-10job'; did you mean 'faro-10jobs'?"
        assert said.startswith(f"fetch: {ROOT}/data/sources.yaml: {hint}")
        assert said.count("\n") == 1
