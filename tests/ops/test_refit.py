"""A child process refits the model during the loop; only one that is as good replaces it."""

import os
import signal
import threading
import time
import urllib.request
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from journal_things import count_ticks
from live_things import JOBS, FakeRay, Still
from waiting import PATIENCE_S, until

from faro_lib import forecast, protocol
from faro_lib.policies import PolicyContext, make
from faro_lib.workload import Traces
from faro_ops import cli
from faro_ops.journal.reading import parts
from faro_ops.journal.writing import Journal
from faro_ops.operate import background
from faro_ops.operate.background import in_child, latest
from faro_ops.operate.controller import model as models
from faro_ops.operate.controller.model import (
    ACCEPTED,
    FAILED,
    JOURNAL,
    REFUSED,
    REVERTED,
    FreshModel,
    Source,
)
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.loop.loop import run
from faro_ops.operate.loop.renewal import fitted, renewal

LIMITS = {"limit_s": 60.0, "limit_gb": 4.0}


def traces(days, level=100, minutes=240):
    usual = np.where(np.arange(minutes) < minutes // 2, level, 9 * level)
    counts = np.random.default_rng(0).poisson(usual, (days, 1, len(JOBS), minutes))
    return Traces(JOBS, counts[:-1], counts[-1])


class TestAChildProcess:
    def test_its_result_is_returned(self):
        assert in_child(partial(max, [1, 3, 2]), **LIMITS) == 3

    def test_its_error_is_raised(self):
        with pytest.raises(ValueError, match="invalid literal for int"):
            in_child(partial(int, "x"), **LIMITS)

    def test_it_is_ended_at_its_limit_of_time(self):
        with pytest.raises(TimeoutError, match="it took longer than 1 s"):
            in_child(partial(time.sleep, 600), limit_s=1.0, limit_gb=4.0)

    def test_it_cannot_use_more_memory_than_its_limit(self):
        with pytest.raises(MemoryError, match=r"it needs more than 0\.5 GB of memory"):
            in_child(partial(bytearray, 10**9), limit_s=60.0, limit_gb=0.5)

    def test_its_crash_is_an_error(self):
        with pytest.raises(OSError, match="its process ended with exit status 3"):
            in_child(partial(os._exit, 3), **LIMITS)

    def test_it_has_the_lowest_priority(self):
        assert in_child(partial(os.nice, 0), **LIMITS) == 19


class TestTheComparison:
    def test_a_better_model_is_accepted_with_all_days_learnt(self):
        known = traces(4)
        new, reason = renewal("seasonal", known, fitted("seasonal", traces(4, level=10)))
        assert "instead of" in reason
        days = np.concatenate([known.train, known.evaluation[None]])
        np.testing.assert_allclose(new.mean(5)[0], days[:, 0, 0, :5].mean(axis=0))

    def test_a_worse_model_is_refused(self):
        known = traces(4)
        # The days before the last are not like it.
        wrong = Traces(JOBS, known.train // 10, known.evaluation)
        new, reason = renewal("seasonal", wrong, forecast.fit("seasonal", known))
        assert new is None
        assert "CRPS" in reason

    def test_an_equal_model_is_accepted(self):
        known = traces(5)
        before = Traces(JOBS, known.train[:-1], known.train[-1])
        assert renewal("ar", known, fitted("ar", before))[0]

    def test_the_first_day_is_compared_with_an_untrained_model(self):
        assert "CRPS" in renewal("auto", traces(1), Source().model(JOBS))[1]

    def test_a_model_whose_forecasts_are_not_finite_is_refused(self, monkeypatch):
        known = traces(3)
        sample = models.fit("persistence", traces(2)).__class__.sample
        serving = fitted("ar", known)
        monkeypatch.setattr(
            type(models.fit("persistence", known)), "sample", lambda *more: sample(*more) * np.nan
        )
        assert renewal("persistence", known, serving)[0] is None


class TestTheModelThatServes:
    """With children that are threads, whose verdicts the test gives."""

    @pytest.fixture
    def verdicts(self, monkeypatch):
        given = []

        def in_thread(work):
            future = Future()
            verdict = given.pop(0)
            (future.set_exception if isinstance(verdict, Exception) else future.set_result)(verdict)
            return future

        monkeypatch.setattr(models, "in_thread", in_thread)
        return given

    @pytest.fixture
    def model(self):
        self.said = []
        return FreshModel(Source(), JOBS, lambda *words: self.said.append(words))

    def test_a_new_model_serves_once_it_is_accepted(self, model, verdicts):
        new = fitted("ar", traces(2))
        verdicts.append((new, "it is better"))
        assert model.newer() is None
        model.wanted = True
        assert model.newer() is new
        assert model.newer() is None
        assert model.of(JOBS) is new
        assert self.said == [(ACCEPTED, "it is better")]

    @pytest.mark.parametrize("verdict", [(None, "it is worse"), OSError("its process ended")])
    def test_the_old_model_stays_if_the_new_one_is_refused_or_its_process_fails(
        self, model, verdicts, verdict
    ):
        old = model.of(JOBS)
        verdicts.append(verdict)
        model.wanted = True
        assert model.newer() is None
        assert model.of(JOBS) is old
        assert [outcome for outcome, _ in self.said] == [
            FAILED if isinstance(verdict, OSError) else REFUSED
        ]

    def test_the_old_model_serves_again_if_the_policy_fails_with_the_new_one(self, model, verdicts):
        old = model.of(JOBS)
        verdicts.append((fitted("ar", traces(2)), "it is better"))
        model.wanted = True
        model.newer()
        model.policy_failed()
        assert model.newer() is old
        model.policy_failed()  # with the old one
        assert model.newer() is None
        assert [outcome for outcome, _ in self.said] == [ACCEPTED, REVERTED]

    def test_a_refit_begins_every_night_and_not_twice(self, verdicts, monkeypatch, tmp_path):
        source = Source(history=JOURNAL, journal=str(tmp_path / "j"))
        model = FreshModel(source, JOBS, lambda *_: None)
        verdicts += [(None, "it is worse"), (None, "it is worse")]
        model.newer()
        assert len(verdicts) == 2
        now_s = time.time()
        monkeypatch.setattr(time, "time", lambda: now_s + 86_400)
        for _ in range(3):
            model.newer()
        assert len(verdicts) == 1

    def test_the_old_jobs_keep_their_model_if_that_of_new_jobs_cannot_be_fitted(
        self, model, tmp_path
    ):
        old = model.of(JOBS)
        model._source = Source(str(tmp_path / "deleted.csv"))
        with pytest.raises(FileNotFoundError):
            model.of((*JOBS, replace(JOBS[0], name="c")))
        assert model.of(JOBS) is old

    def test_a_failure_long_after_a_new_model_was_accepted_is_not_blamed_on_it(
        self, model, verdicts, monkeypatch
    ):
        new = fitted("ar", traces(2))
        now_s = time.monotonic()
        verdicts.append((new, "it is better"))
        model.wanted = True
        model.newer()
        monkeypatch.setattr(time, "monotonic", lambda: now_s + 700)
        model.policy_failed()
        assert model.newer() is None
        assert model.of(JOBS) is new

    def test_an_override_does_not_fit_the_model_again_and_a_new_job_does(self, model):
        old = model.of(JOBS)
        assert model.of((replace(JOBS[0], max_replicas=2), JOBS[1])) is old
        assert model.of((*JOBS, replace(JOBS[0], name="c"))).jobs == ("a", "b", "c")


def test_the_loop_goes_on_with_the_counts_that_the_old_model_has_seen(tmp_path):
    """The loop is not left, so the lease and the journal stay as they are."""
    new = forecast.fit("persistence", traces(2))
    seen = []
    given = []
    context = PolicyContext(JOBS, forecast.fit("ar", traces(2)))
    policy = make("MArk", context)

    def on_step(step):
        given.append(new if len(given) == 20 else None)

    class Watched(type(policy)):
        def decide(self, state, observation):
            seen.append(state.forecaster)
            return super().decide(state, observation)

    run(
        Still(),
        Watched(policy.forecaster),
        JOBS,
        400.0,
        journal=tmp_path / "j",
        on_step=on_step,
        newest=lambda: given[-1] if given else None,
    )
    assert len(seen) == 39
    assert type(seen[20]) is not type(new)
    assert type(seen[21]) is type(new)
    np.testing.assert_array_equal(seen[21].counts, seen[20].counts)
    assert seen[21].minute_of_day == seen[20].minute_of_day
    with Journal(tmp_path / "j") as journal:
        assert len(journal.ticks) == 39


def test_a_model_that_fails_when_it_takes_over_leaves_the_old_one(tmp_path):
    failures = []
    steps = []
    one_job = Traces(JOBS[:1], traces(2).train[:, :, :1], traces(2).evaluation[:, :1])
    broken = forecast.fit("ar", one_job)
    policy = make("MArk", PolicyContext(JOBS, forecast.fit("ar", traces(2))))
    run(
        Still(),
        policy,
        JOBS,
        200.0,
        on_step=steps.append,
        on_failure=lambda reason, _: failures.append(reason),
        newest=lambda: broken if len(steps) == 15 else None,
    )
    assert failures == [protocol.FAILED]
    assert len(steps) == 19


def test_an_answer_that_hangs_delays_nobody_and_the_one_before_stays(monkeypatch):
    third, hangs = threading.Event(), threading.Event()
    calls = []

    def ask():
        calls.append(None)
        if len(calls) == 3:
            third.set()
            hangs.wait(PATIENCE_S)
        return len(calls)

    def wait(futures, patience_s=None):
        """Patience is over once the third call hangs, and not before."""
        until(lambda: futures[0].done() or (third.is_set() and not hangs.is_set()))

    monkeypatch.setattr(background, "wait", wait)
    ask_again = latest(ask)
    assert ask_again() == 2
    assert ask_again() == 2
    assert ask_again() == 2
    assert len(calls) == 3, "one call at a time"
    hangs.set()
    assert ask_again() == 3


SLOW = """
import multiprocessing, os, time
from faro_lib.forecast import fit, register

@register("slow")
def slow(traces, seed=0):
    if multiprocessing.parent_process():
        open(os.environ["BEGUN"], "w").close()
        time.sleep(600)
    return fit("ar", traces, seed=seed)
"""


@pytest.mark.slow
def test_ticks_go_on_and_the_lease_is_kept_while_a_slow_refit_is_ended_at_its_limit(
    tmp_path, capfd, monkeypatch
):
    known = traces(2)
    days = np.concatenate([known.train, known.evaluation[None]])
    day, _, job, minute = np.indices(days.shape).reshape(4, -1)
    rows = {
        "day": day,
        "minute": minute,
        "job": np.array(["a", "b"])[job],
        "requests": days.ravel(),
    }
    pd.DataFrame(rows).to_csv(tmp_path / "days.csv", index=False)
    (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
    (tmp_path / "slow.py").write_text(SLOW)
    monkeypatch.setenv("FARO_PLUGINS", str(tmp_path / "slow.py"))
    monkeypatch.setenv("BEGUN", str(tmp_path / "begun"))
    monkeypatch.setattr(models, "REFIT_S", 15.0)
    ray = FakeRay({"a": 1, "b": 1})
    log = tmp_path / "j"
    ticks_at = {}
    holders = set()
    lease = ray.stats.lease
    ray.stats.lease = lambda holder, *more: holders.add(holder) or lease(holder, *more)
    metrics = []
    exporter_of = Exporter.__init__

    def note(self, *arguments, **named):
        exporter_of(self, *arguments, **named)
        metrics.append(self)

    monkeypatch.setattr(Exporter, "__init__", note)

    def ticks():
        return count_ticks(log)

    def operator():
        end_s = time.monotonic() + 240

        def until(condition):
            while not condition() and time.monotonic() < end_s:
                time.sleep(0.1)

        until(lambda: ticks() > 1)
        os.kill(os.getpid(), signal.SIGUSR1)
        until((tmp_path / "begun").exists)
        ticks_at["begun"] = ticks()
        until(lambda: ticks() > ticks_at["begun"] + 4)
        ticks_at["during"] = ticks()
        url = f"http://127.0.0.1:{metrics[0].port}/metrics"
        until(
            lambda: b'faro_refits_total{outcome="failed"} 1.0' in urllib.request.urlopen(url).read()
        )
        ticks_at["ended"] = ticks()
        os.kill(os.getpid(), signal.SIGTERM)

    with ray.served() as address:
        thread = threading.Thread(target=operator)
        thread.start()
        command = f"run --jobs {tmp_path}/jobs.yaml --address {address}".split()
        command += f"--serve-address {address} --apply --policy MArk --tick 0.5".split()
        command += f"--journal {log} --metrics-port 0 --forecaster slow".split()
        assert cli.main([*command, "--history", str(tmp_path / "days.csv")]) == 0
        thread.join()
    said = capfd.readouterr().err
    assert ticks_at["begun"] + 4 < ticks_at["during"] <= ticks_at["ended"]
    assert "refit failed: it took longer than 15 s; the earlier model stays" in said
    assert "Traceback" not in said
    assert len(holders) == 1
    assert len(parts(log)) == 1
