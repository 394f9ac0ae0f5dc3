"""`faro run` observes two latencies of token services: on Ray Serve and from Prometheus."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from observations import observed as observation_of
from waiting import in_virtual_time

from faro_lib.control.tick import Step
from faro_lib.protocol import hold
from faro_lib.workload import Job
from faro_lib.workload.replicas import SERIAL, Continuous
from faro_ops.cli import main
from faro_ops.journal.ticks import Header, Tick, tick_of, tick_record
from faro_ops.journal.writing import Journal
from faro_ops.operate.clock import Clock
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.kube.deployment_metrics import (
    FIRST_TOKEN,
    PER_TOKEN,
    DeploymentMetrics,
    Queries,
)
from faro_ops.operate.kube.deployments import DeploymentRef
from faro_ops.operate.kube.query_batches import Answer
from faro_ops.operate.kube.vllm import (
    END_TO_END,
    FIRST_TOKEN_BOUNDS_S,
    PER_TOKEN_BOUNDS_S,
    with_vllm,
)
from faro_ops.operate.kube.vllm import FIRST_TOKEN as FIRST_TOKEN_OF_VLLM
from faro_ops.operate.kube.vllm import PER_TOKEN as PER_TOKEN_OF_VLLM
from faro_ops.operate.rayserve.recent import RecentSeconds
from faro_ops.operate.rayserve.replica import ReplicaQueue
from faro_ops.operate.rayserve.statistics import StatsAggregator, add_row, empty_row, fault_of
from faro_ops.operate.rayserve.streams import Streams, stream_key
from faro_ops.protocol import LiveGuardrails

BOTH = Continuous(
    0.02, 0.001, 1e-4, 8, output_tokens=10, prompt_tokens=100, slo_on="both", per_token_weight=20
)
SLO_S = 1.0  # so the limit per later token is 0.05 s
BUCKET = 0.045  # relative width of a latency bucket


def answer(first_s: float, per_token_s: float, tokens: int = 11) -> str:
    """The key of a streamed answer with these times."""
    return stream_key(first_s, first_s + per_token_s * (tokens - 1), tokens)


def minute_of(*answers: str, **counts: int) -> dict[int, dict]:
    """Measurements of the minute that begins at Unix second 1000; the answers are in its middle."""
    rows = {second: empty_row() for second in range(1000, 1060)}
    for key in answers:
        add_row(rows[1030], {"arrivals": 1, "done": 1, "buckets": {key.split(",")[0]: 1}})
        add_row(rows[1030], {"streams": {key: 1}})
    add_row(rows[1030], counts)
    return rows


def recent(replica, *answers: str, scale: float = 1.0, **counts: int) -> RecentSeconds:
    one = RecentSeconds(("chat",), Clock(1000, scale=scale), {"chat": replica})
    one.add("chat", minute_of(*answers, **counts))
    return one


# --- Ray Serve ------------------------------------------------------------------------------------


def test_a_request_counts_with_the_worse_of_its_two_latencies():
    # One misses the limit to the first token, another one the limit per token, two meet both.
    answers = (answer(2.0, 0.01), answer(0.1, 0.08), answer(0.1, 0.01), answer(0.2, 0.02))
    seen = recent(BOTH, *answers)
    worst = seen.tail_latency_s(1, np.array([0.999]))
    assert worst == pytest.approx([2.0], rel=BUCKET)
    third = seen.tail_latency_s(1, np.array([0.75]))
    assert third == pytest.approx([20 * 0.08], rel=BUCKET)
    assert seen.goodput_rps(1, np.array([SLO_S])) == pytest.approx([2 / 60])


def test_the_share_of_requests_below_the_slo_is_the_share_that_meets_both_limits():
    rng = np.random.default_rng(0)
    first_s, per_token_s = rng.lognormal(-0.7, 1, 500), rng.lognormal(-3.5, 0.7, 500)
    seen = recent(BOTH, *map(answer, first_s, per_token_s))
    met = ((first_s <= SLO_S) & (per_token_s <= SLO_S / BOTH.per_token_weight)).sum()
    # Answers in the bucket of a limit may count on either side of it.
    near = (abs(np.log(first_s)) < BUCKET) | (abs(np.log(per_token_s / 0.05)) < BUCKET)
    assert abs(60 * seen.goodput_rps(1, np.array([SLO_S]))[0] - met) <= near.sum() < 100


def test_both_latencies_are_observed_by_name():
    seen = recent(BOTH, answer(0.3, 0.01), answer(0.1, 0.06))
    first_s, per_token_s = seen.token_latencies_s(1, np.array([0.99]))
    assert first_s == pytest.approx([0.3], rel=BUCKET)
    assert per_token_s == pytest.approx([0.06], rel=BUCKET)


@pytest.mark.parametrize(
    ("slo_on", "latency_s"),
    [("first_token", 0.2), ("per_token", 0.05), ("end_to_end", 0.7)],
)
def test_an_slo_on_one_latency_is_judged_by_that_one(slo_on, latency_s):
    seen = recent(replace(BOTH, slo_on=slo_on, per_token_weight=0.0), answer(0.2, 0.05))
    assert seen.tail_latency_s(1, np.array([0.5])) == pytest.approx([latency_s], rel=BUCKET)
    assert seen.mean_latency_s(60.0) == pytest.approx([latency_s], rel=BUCKET)


def test_a_dropped_request_misses_both_limits():
    seen = recent(BOTH, answer(0.1, 0.01), arrivals=1, dropped=1)
    assert np.isinf(seen.tail_latency_s(1, np.array([0.9])))
    for latency_s in seen.token_latencies_s(1, np.array([0.9])):
        assert np.isinf(latency_s)
    assert seen.goodput_rps(1, np.array([SLO_S])) == pytest.approx([1 / 60])


def test_latencies_of_tokens_are_in_trace_time():
    # A minute takes 30 s, and each second two: the answers of both minutes count as one.
    slow, fast = recent(BOTH, answer(0.3, 0.03)), recent(BOTH, answer(0.15, 0.015), scale=2.0)
    for of_slow, of_fast in zip(
        slow.token_latencies_s(1, np.array([0.5])), fast.token_latencies_s(2, np.array([0.5]))
    ):
        assert of_fast == pytest.approx(of_slow, rel=BUCKET)


def test_a_service_without_streams_has_no_latency_of_tokens_but_a_goodput():
    one = RecentSeconds(("a",), Clock(1000), {"a": SERIAL})
    row = {"arrivals": 1, "done": 1, "latency_s": 0.2, "buckets": {"122": 1}}
    one.add("a", dict.fromkeys(range(1000, 1060), empty_row() | row))
    assert np.isnan(one.token_latencies_s(1, np.array([0.99]))).all()
    assert one.goodput_rps(1, np.array([0.3])) == pytest.approx([1.0])
    assert one.goodput_rps(1, np.array([0.1])) == pytest.approx([0.0])


def test_goodput_is_unknown_without_data():
    assert np.isnan(RecentSeconds(("a",), Clock(1000)).goodput_rps(1, np.ones(1))).all()


def test_a_replica_of_an_earlier_version_reports_no_streams_and_is_understood():
    old = {key: value for key, value in empty_row().items() if key != "streams"}
    assert fault_of(old) == ""
    window = StatsAggregator()
    window.report("chat", "r", 0, {int(time.time()): old})
    one = RecentSeconds(("chat",), Clock(1000), {"chat": BOTH})
    one.add("chat", dict.fromkeys(range(1000, 1060), old | {"arrivals": 1}))
    assert one.arrivals_per_min(1).tolist() == [[60]]


@pytest.mark.parametrize("streams", [{"1,2": 1}, {"1,2,x": 1}, {"1,2,3": -1}, ["1,2,3"]])
def test_streams_that_cannot_be_right_are_a_fault(streams):
    assert fault_of(empty_row() | {"streams": streams})


def streamed(parts: int, pause_s: float, fails_after: int | None = None) -> dict:
    """The sum of what a replica measures of one streamed answer."""

    async def answered():
        queue, arrived_s = ReplicaQueue(4, 4), time.perf_counter()

        async def tokens():
            for n in range(parts):
                await asyncio.sleep(pause_s)
                if n == fails_after:
                    raise RuntimeError("the model failed")
                yield "token"

        async def call():
            return await queue.streamed(tokens(), arrived_s)

        try:
            async for _ in await queue.serve(call):
                pass
        except RuntimeError:
            pass
        total = empty_row()
        for row in queue.rows.values():
            add_row(total, row)
        return total, queue.ongoing

    total, ongoing = in_virtual_time(answered())
    assert ongoing == 0
    return total


def test_a_replica_measures_the_times_to_the_first_per_later_and_to_the_last_token():
    total = streamed(parts=5, pause_s=0.03)
    assert total["done"] == sum(total["streams"].values()) == 1
    streams = Streams.of(total)
    assert streams.first_s == pytest.approx([0.03], rel=BUCKET)
    assert streams.per_token_s == pytest.approx([0.03], rel=BUCKET)
    assert streams.all_s == pytest.approx([0.15], rel=BUCKET)


def test_an_answer_that_breaks_off_has_failed_and_is_no_stream():
    total = streamed(parts=5, pause_s=0.001, fails_after=3)
    assert (total["done"], total["failed"], total["streams"]) == (1, 1, {})


# --- Prometheus -----------------------------------------------------------------------------------

CHAT = Job("chat", slo_s=SLO_S, quantile=0.99, replica=BOTH)
ENDS = np.array([880.0, 940.0, 1000.0])  # of minutes; it is 1030 now


class Batches:
    """Answers each query by the measurement that asks it."""

    def __init__(self, **values: float):
        self.values = {key.replace("_", " "): value for key, value in values.items()}
        self.queries: dict[str, str] = {}

    def ask(self, questions):
        self.queries |= {one.key[0]: one.query for one in questions}
        return {
            one.key: Answer(np.full(len(one.times_s), self.values.get(one.key[0], 7.0)))
            for one in questions
        }


def observed(queries: Queries, **values: float):
    metrics = DeploymentMetrics("http://127.0.0.1:9")
    metrics._batches = batches = Batches(**values)
    seen = metrics.observe([queries], ENDS, 1030.0)
    return SimpleNamespace(queries=batches.queries, **seen)


def of_chat(job: Job = CHAT, **section: str) -> Queries:
    return DeploymentRef.of(job, {"queries": {"vllm": 'pod=~"chat-.*"'} | section}, "ns").queries


@pytest.mark.parametrize(
    ("first_s", "per_token_s", "worse_s"),
    [(0.4, 0.01, 0.4), (0.4, 0.06, 1.2), (np.inf, 0.01, np.nan)],
)
def test_the_worse_of_two_quantiles_counts_where_only_histograms_are_known(
    first_s, per_token_s, worse_s
):
    values = {FIRST_TOKEN.replace(" ", "_"): first_s, PER_TOKEN.replace(" ", "_"): per_token_s}
    seen = observed(of_chat(), **values)
    assert seen.tail_latency_s == pytest.approx([worse_s], nan_ok=True)
    assert seen.per_token_s == pytest.approx([per_token_s])
    assert seen.goodput_rps == pytest.approx([7 / 60])


def test_a_stated_quantile_of_the_worse_latency_takes_precedence():
    queries = of_chat(latency_s="worse_of_each_request[$window]")
    assert observed(queries, latency_quantile=0.3).tail_latency_s.tolist() == [0.3]


def test_the_default_queries_name_the_metrics_of_vllm_and_the_pods():
    queries = of_chat()
    first = 'sum by (le) (rate(vllm:time_to_first_token_seconds_bucket{pod=~"chat-.*"}[$window]))'
    assert queries.first_token_s == f"histogram_quantile(0.99, {first})"
    assert "vllm:request_time_per_output_token_seconds_bucket" in queries.per_token_s
    assert 'le="1.0"' in queries.met_slo
    assert 'le="0.05"' in queries.met_slo
    assert of_chat(ongoing="mine").ongoing == "mine"


@pytest.mark.parametrize(
    ("slo_on", "metric"),
    [
        ("first_token", "vllm:time_to_first_token_seconds"),
        ("per_token", "vllm:request_time_per_output_token_seconds"),
        ("end_to_end", "vllm:e2e_request_latency_seconds"),
    ],
)
def test_an_slo_on_one_latency_has_the_histogram_of_that_one(slo_on, metric):
    replica = replace(BOTH, slo_on=slo_on, per_token_weight=0.0)
    queries = of_chat(replace(CHAT, replica=replica))
    assert metric in queries.latency_s
    assert metric in queries.latency_mean_s
    assert observed(queries, latency_quantile=0.3).tail_latency_s.tolist() == [0.3]


@pytest.mark.parametrize(
    ("slo_s", "first", "per_token"), [(1.0, "1.0", "0.05"), (0.9, "0.75", "0.025")]
)
def test_a_limit_between_two_bounds_counts_as_the_lower_one(slo_s, first, per_token):
    met = with_vllm(replace(CHAT, slo_s=slo_s), {"vllm": ""})["met_slo"]
    assert f'le="{first}"' in met
    assert f'le="{per_token}"' in met


def test_a_limit_below_every_bound_has_no_count_of_met_requests():
    assert "met_slo" not in with_vllm(replace(CHAT, slo_s=0.1), {"vllm": ""})


def test_bounds_rise():
    for bounds_s in (FIRST_TOKEN_BOUNDS_S, PER_TOKEN_BOUNDS_S):
        assert list(bounds_s) == sorted(set(bounds_s))


@pytest.mark.parametrize(
    ("job", "section", "problem"),
    [
        (CHAT, {"vllm": "{pod='a'}"}, "must be labels without braces"),
        (CHAT, {"vllm": 3}, "must be labels without braces"),
        (Job("chat"), {"vllm": ""}, "needs a replica of kind continuous, not serial"),
        (CHAT, {"requests": "r[$window]", "latency_mean_s": "m[$window]"}, "first_token_s is miss"),
    ],
)
def test_queries_that_cannot_measure_both_latencies_are_one_line(job, section, problem):
    with pytest.raises(ValueError, match=problem) as error:
        DeploymentRef.of(job, {"queries": section}, "ns")
    assert "\n" not in str(error.value)


# Counters of vLLM that rise each minute: 100 requests, of which 90 see the first token within 1 s
# and 95 have at most 0.05 s per later token. The means are 0.5 s and 0.04 s, the latter times 20
# is larger. Two pods serve, and those of another service do not count.
BUCKETS = {
    FIRST_TOKEN_OF_VLLM: {"0.5": 40, "1.0": 90, "2.5": 100, "+Inf": 100},
    PER_TOKEN_OF_VLLM: {"0.025": 50, "0.05": 95, "0.075": 100, "+Inf": 100},
    END_TO_END: {"+Inf": 100},
}
SUMS_S = {FIRST_TOKEN_OF_VLLM: 50.0, PER_TOKEN_OF_VLLM: 4.0, END_TO_END: 120.0}
PER_WINDOW = ("requests", "met_slo")  # the window of two minutes counts twice as many
EXPECTED = {
    "requests": 100,
    "latency_mean_s": 0.8,
    "first_token_s": 2.35,  # 1.0 s + 9/10 of the way to 2.5 s
    "per_token_s": 0.07,  # 0.05 s + 4/5 of the way to 0.075 s
    "met_slo": 85,  # surely: 90 and 95 of 100 leave at most 15 that missed either
    "ongoing": 5,
}


def vllm_series() -> list[dict[str, str]]:
    """Input series of promtool, one value per minute."""
    found = []
    for pod, service, factor in (("chat-1", "chat", 0.25), ("chat-2", "chat", 0.75), ("x", "x", 3)):
        labels = f'pod="{pod}",service="{service}"'
        for metric, buckets in BUCKETS.items():
            counts = {f'{metric}_bucket{{{labels},le="{le}"}}': n for le, n in buckets.items()}
            counts[f"{metric}_count{{{labels}}}"] = buckets["+Inf"]
            counts[f"{metric}_sum{{{labels}}}"] = SUMS_S[metric]
            found += [{"series": one, "values": f"0+{factor * n:g}x5"} for one, n in counts.items()]
        for state, number in (("running", 4), ("waiting", 1)):
            gauge = f"vllm:num_requests_{state}{{{labels}}}"
            found.append({"series": gauge, "values": f"{factor * number:g}+0x5"})
    return found


@pytest.mark.skipif(
    not shutil.which("promtool"),
    reason="promtool is not there: on Debian, apt-get install prometheus",
)
def test_prometheus_evaluates_the_default_queries_as_meant(tmp_path):
    found = with_vllm(CHAT, {"vllm": 'service="chat"'})
    assert set(found) == set(EXPECTED)
    # promtool compares exactly; the queries are rounded to six digits here.
    asked = [
        {
            "expr": f"round({query.replace('$window', '2m')}, 0.000001)",
            "eval_time": "4m",
            "exp_samples": [
                {"labels": "{}", "value": EXPECTED[name] * (2 if name in PER_WINDOW else 1)}
            ],
        }
        for name, query in found.items()
    ]
    case = {"interval": "1m", "input_series": vllm_series(), "promql_expr_test": asked}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- journal, exporter, explanation ---------------------------------------------------------------


def live_step() -> Step:
    """A tick of the job CHAT, whose minute is known."""
    seen = observation_of(
        [2],
        arrivals_per_min=np.array([[120.0]]),
        first_token_s=np.array([0.4]),
        per_token_s=np.array([0.06]),
        goodput_rps=np.array([1.5]),
    )
    return Step(seen, hold(seen), np.array([2]), 0.1)


def test_the_journal_keeps_both_latencies_and_the_goodput():
    record = json.loads(json.dumps(tick_record(Tick(live_step()), None)))
    again = tick_of(record, 1, None).step
    assert again.observation.first_token_s.tolist() == [0.4]
    assert again.observation.per_token_s.tolist() == [0.06]
    assert again.observation.goodput_rps.tolist() == [1.5]


def test_the_exporter_names_both_latencies_and_the_goodput():
    with closing(Exporter((CHAT,), 0)) as exporter:
        exporter.step(live_step())
        url = f"http://127.0.0.1:{exporter.port}/metrics"
        text = urllib.request.urlopen(url).read().decode()
    assert 'faro_first_token_seconds{inference_job="chat"} 0.4' in text
    assert 'faro_per_token_seconds{inference_job="chat"} 0.06' in text
    assert 'faro_goodput_rps{inference_job="chat"} 1.5' in text


def test_an_explanation_has_both_latencies_their_limits_and_the_goodput(tmp_path, capsys):
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.begin(Header("FairShare", (CHAT,), LiveGuardrails(), 10.0, True, origin_s=0))
        journal.tick(live_step(), None)
    assert main(["explain", str(path)]) == 0
    words = capsys.readouterr().out.splitlines()[-1].split()
    assert words == ["chat", "400", "ms", "1000", "ms", "60", "ms", "50", "ms", "1.50", "2.00"]
