"""The reader of ServeGen's clients, and the requests that are drawn from them."""

import numpy as np
import pandas as pd
import pytest

from faro_lib.workload.replicas import replica_of
from studies.llm.engines import costs
from studies.llm.servegen import (
    DAY_S,
    QUANTILES,
    WINDOW_S,
    arrivals_of_day,
    lengths_at,
    read,
    tokens_of_day,
)

LEVELS = np.array([1, 5, 10, 25, 50, 75, 90, 95, 99])


def window(job, start_s, rate_rps=1.0, family="gamma", shape=1.0):
    row = {"job": job, "start_s": start_s, "rate_rps": rate_rps, "interarrival_cv": 1.0}
    return row | {"family": family, "shape": shape, "scale_s": 1.0}


def length(job, start_s, tokens, scale):
    """Lengths uniform from 0 to 100 x `scale`."""
    values = dict(zip(QUANTILES, scale * LEVELS))
    row = {"job": job, "start_s": start_s, "tokens": tokens, "mean": 50.0 * scale}
    return row | {"std": 29.0 * scale, **values, "max": 100.0 * scale}


@pytest.fixture
def folder(tmp_path):
    """Client a is busy in two windows of two days, b in one; c has no lengths."""
    windows = [
        window("b", 600, 2.0, "weibull", 0.5),
        window("a", 0, 3.0, "gamma", 0.25),
        window("a", DAY_S + 1200, 1.5),
        window("c", 0),
    ]
    tokens = [
        *(length("a", 21_600, kind, scale) for kind, scale in (("input", 10), ("output", 1))),
        *(length("b", 0, kind, scale) for kind, scale in (("input", 30), ("output", 3))),
        *(length("b", 64_800, kind, 5) for kind in ("input", "output")),
    ]
    pd.DataFrame(windows).to_csv(tmp_path / "windows.csv.gz", index=False)
    pd.DataFrame(tokens).to_csv(tmp_path / "tokens.csv", index=False)
    return tmp_path


def test_the_clients_are_read_by_name_and_a_window_that_is_left_out_is_silent(folder):
    clients = read(folder)
    assert clients.names == ("a", "b", "c")
    assert clients.days == 2
    assert clients.rate_rps[0].nonzero()[0].tolist() == [0, 146]
    assert clients.rate_rps[0, [0, 146]].tolist() == [3.0, 1.5]
    assert clients.weibull[1].nonzero()[0].tolist() == [1]


def test_a_block_without_lengths_has_those_of_the_nearest_one(folder):
    means = read(folder).lengths[..., 0]
    assert (means[0, :, 0] == 500).all()
    assert means[1, :, 0].tolist() == [1500, 1500, *[250] * 6]


def test_a_client_without_lengths_has_the_mean_of_the_others(folder):
    clients = read(folder)
    assert clients.pooled == ("c",)
    assert (
        clients.lengths[2, 0].tolist()
        == ((clients.lengths[0] + clients.lengths[1])[0] / 2).tolist()
    )


def test_a_window_has_the_requests_of_its_rate(folder):
    clients = read(folder)
    first, second = (arrivals_of_day(clients, 0, day) for day in (1, 2))
    assert len(first) == 3.0 * WINDOW_S
    assert first.max() < WINDOW_S
    assert len(second) == 1.5 * WINDOW_S
    assert second.min() >= 1200
    assert second.max() < 1800
    assert (np.diff(first) >= 0).all()


@pytest.mark.parametrize(("client", "cv"), [(0, 2.0), (1, 5**0.5)])
def test_the_gaps_have_the_variation_of_their_family_and_shape(folder, client, cv):
    # Gamma: 1 / sqrt(shape); Weibull with shape 1/2: sqrt(5).
    gaps = np.concatenate(
        [np.diff(arrivals_of_day(read(folder), client, 1, seed)) for seed in range(30)]
    )
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_the_requests_of_a_day_depend_on_the_seed_alone(folder):
    clients = read(folder)
    one, again, other = (arrivals_of_day(clients, 0, 1, seed) for seed in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()


def test_lengths_have_the_quantiles_and_the_mean_of_the_file():
    rng = np.random.default_rng(1)
    of_block = np.array([70.0, 29.0, *LEVELS.astype(float), 1e9])  # uniform would have mean 50
    lengths = lengths_at(of_block, rng.random(400_000), rng.standard_exponential(400_000))
    assert np.quantile(lengths, LEVELS[:-1] / 100) == pytest.approx(LEVELS[:-1], abs=0.5)
    assert lengths.mean() == pytest.approx(70, rel=0.03)


def test_lengths_are_whole_at_least_one_and_cut_at_the_context(folder):
    clients = read(folder)
    time_s = arrivals_of_day(clients, 1, 1)
    tokens = tokens_of_day(clients, 1, 1, time_s, longest=2000)
    assert tokens.shape == (2, len(time_s))
    assert (tokens == np.rint(tokens)).all()
    assert tokens.min() >= 1
    assert tokens.max() == 2000


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"windows\.csv\.gz: no such file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "column", "value", "message"),
    [
        ("windows.csv.gz", "rate_rps", -1.0, "line 2: rate_rps must be a finite number >= 0"),
        ("windows.csv.gz", "family", "pareto", "line 2: family must be gamma or weibull"),
        ("tokens.csv", "p50", "many", "line 2: p50 must be a finite number >= 0"),
        ("tokens.csv", "tokens", "image", "line 2: tokens must be input or output"),
    ],
)
def test_a_bad_value_is_named_with_file_and_line(folder, file, column, value, message):
    table = pd.read_csv(folder / file).astype(object)
    table.loc[0, column] = value
    table.to_csv(folder / file, index=False)
    with pytest.raises(ValueError, match=f"{file}, {message}"):
        read(folder)


def test_a_missing_column_is_named(folder):
    pd.read_csv(folder / "tokens.csv").drop(columns="p99").to_csv(
        folder / "tokens.csv", index=False
    )
    with pytest.raises(ValueError, match=r"tokens\.csv: column 'p99' is missing"):
        read(folder)


def test_a_request_of_mean_length_costs_one_and_cost_is_busy_time():
    replica = replica_of(
        {
            "kind": "continuous",
            **{"alpha_s": 0.02, "beta_s": 0.001, "gamma_s": 0.0001, "max_sequences": 10},
            **{"prompt_tokens": 100, "output_tokens": 20},
        }
    )
    assert costs(replica, np.array([100.0]), np.array([20.0])).tolist() == [1.0]
    # 0.01 s for the prompt; 20 of the 0.03 s of an iteration that 10 sequences share.
    longer_s = 0.01 + 40 * 0.003
    assert costs(replica, np.array([100.0]), np.array([40.0])) == pytest.approx(longer_s / 0.07)
