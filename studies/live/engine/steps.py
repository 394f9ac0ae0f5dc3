"""The steps of llama.cpp in service, from its own timings of every token.

A service is not an engine on an idle machine: while it computes, Python sends tokens and clients
read them, on the same processors. So a profile, which sees the service, is compared with what
llama.cpp measures in the service.

llama.cpp says with each token how long its output has taken so far. Two successive tokens of a
request are thus one step apart, by llama.cpp's clock. The times at which Python hears of tokens
only serve to find the tokens of different requests that belong to the same step.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.workload.replicas import Continuous
from studies.live.engine.model import TOKEN_COLUMNS

APART_S = 0.003  # tokens that are further apart belong to different steps
# A request with fewer tokens says too little about its clock, so its tokens join the nearest step.
ALIGNED_TOKENS = 3
NEAR = 0.25  # prompts within this share of a length stand for it
MILLI = 1e3


def tokens_of_one(folder: str | Path, since_s: float) -> pd.DataFrame:
    """The tokens of the engine with the most of them, in the longest time in which it was alone.

    folder : has a file per engine, as `Engine` writes them. since_s : by `time.perf_counter`;
        earlier tokens do not count.
    """
    engines = [pd.read_csv(path, names=list(TOKEN_COLUMNS)) for path in Path(folder).glob("*.csv")]
    engines = [tokens[tokens["heard_s"] >= since_s] for tokens in engines]
    tokens = max(engines, key=len, default=pd.DataFrame())
    if tokens.empty:
        raise ValueError(f"{folder}: no engine has served a token")
    heard_s = tokens["heard_s"]
    others_s = [one["heard_s"].to_numpy() for one in engines if one is not tokens]
    edges_s = np.sort(np.concatenate([[since_s, heard_s.max()], *others_s]))
    longest = np.diff(edges_s).argmax()
    return tokens[heard_s.between(edges_s[longest], edges_s[longest + 1])]


def steps_of(tokens: pd.DataFrame) -> pd.DataFrame:
    """The steps of one engine: columns seconds, sequences, prompt_tokens.

    tokens : has TOKEN_COLUMNS. The first step of an engine that was free is left out, because it
        follows no other token.
    """
    table = _on_one_clock(tokens)
    table = table.assign(step=_numbered(table))
    table = table[table["step"] >= 0]
    first = table[table["predicted_n"] == 1]
    prompt_tokens = first.groupby("step")["prompt_n"].sum()
    spans = table.groupby("request")["step"].agg(["min", "max"])
    count = np.arange(table["step"].max() + 1)
    begun = np.searchsorted(np.sort(spans["min"]), count, side="right")
    ended = np.searchsorted(np.sort(spans["max"]), count, side="left")

    of_request = table.groupby("request")[["step", "predicted_n", "predicted_ms"]].diff()
    successive = (of_request["step"] == 1) & (of_request["predicted_n"] == 1)
    seconds = of_request["predicted_ms"][successive] / MILLI
    by_step = seconds.groupby(table["step"][successive]).median()
    found = pd.DataFrame({"seconds": by_step, "sequences": (begun - ended)[by_step.index]})
    found["prompt_tokens"] = prompt_tokens.reindex(by_step.index, fill_value=0).astype(int)
    return found.reset_index(drop=True)


def _on_one_clock(tokens: pd.DataFrame) -> pd.DataFrame:
    """The tokens in order, with the column end_s: the ends of their steps on the same clock.

    Python hears of a token at the earliest when its step ends, so a request's clock begins at the
    smallest difference.
    """
    tokens = tokens.drop_duplicates(["request", "predicted_n"])
    output_s = tokens["predicted_ms"] / MILLI
    begin_s = (tokens["heard_s"] - output_s).groupby(tokens["request"]).transform("min")
    return tokens.assign(end_s=begin_s + output_s).sort_values("end_s", ignore_index=True)


def _numbered(tokens: pd.DataFrame) -> np.ndarray:
    """The step of each token (tokens,), counted from 0.

    It is -1 if no step of the requests with ALIGNED_TOKENS or more ends when the token does.
    """
    known = (tokens.groupby("request")["request"].transform("size") >= ALIGNED_TOKENS).to_numpy()
    end_s = tokens["end_s"].to_numpy()
    number = np.full(len(end_s), -1)
    number[known] = np.cumsum(np.diff(end_s[known], prepend=-np.inf) > APART_S) - 1
    step_s = pd.Series(end_s[known]).groupby(number[known]).median().to_numpy()
    if len(step_s) and not known.all():
        between = (step_s[1:] + step_s[:-1]) / 2
        nearest = np.searchsorted(between, end_s[~known])
        near = np.abs(step_s[nearest] - end_s[~known]) <= APART_S
        number[~known] = np.where(near, nearest, -1)
    return number


def in_service(
    steps: pd.DataFrame, replica: Continuous, together: Sequence[int], prompts: Sequence[int]
) -> pd.DataFrame:
    """llama.cpp's steps and the profile's times of the same steps.

    Columns quantity, of, steps, seconds, profile; the last two are medians. `step` is without a
    prompt, `prompt` has prompts of about `of` tokens in total, and any number of sequences.
    """
    predicted_s = np.array(
        [replica.decode_s(n) + replica.prefill_s(p) for n, p in _pairs(steps)], dtype=float
    )
    tokens = steps["prompt_tokens"]
    groups = [("step", n, (steps["sequences"] == n) & (tokens == 0)) for n in together]
    for length in prompts:
        groups.append(("prompt", length, tokens.between((1 - NEAR) * length, (1 + NEAR) * length)))
    rows = [
        (
            quantity,
            of,
            int(chosen.sum()),
            steps["seconds"][chosen].median(),
            float(np.median(predicted_s[chosen])) if chosen.any() else np.nan,
        )
        for quantity, of, chosen in groups
    ]
    return pd.DataFrame(rows, columns=["quantity", "of", "steps", "seconds", "profile"])


def of_steps(steps: pd.DataFrame, together: Sequence[int], guess: Continuous) -> Continuous:
    """A replica with llama.cpp's own steps, as medians; `guess` has the other parameters.

    A step of more sequences counts as at least as long as one of fewer. Between the numbers in
    `together`, times are interpolated. A prompt token takes the same time in each step.
    """
    bare = steps[steps["prompt_tokens"] == 0].groupby("sequences")["seconds"].median()
    at = np.array([n for n in together if n in bare.index], dtype=float)
    step_s = np.maximum.accumulate(bare[at].to_numpy())
    slopes_s = np.diff(step_s) / np.diff(at)
    replica = replace(
        guess,
        alpha_s=float(step_s[0] - slopes_s[0] * at[0]),
        beta_s=float(slopes_s[0]),
        beta_knees=tuple(zip(at[1:-1].tolist(), np.diff(slopes_s).tolist())),
        gamma_knees=(),
    )
    with_prompts = steps[steps["prompt_tokens"] > 0]
    without_s = np.array([replica.decode_s(n) for n, _ in _pairs(with_prompts)])
    per_token_s = (with_prompts["seconds"] - without_s) / with_prompts["prompt_tokens"]
    return replace(replica, gamma_s=float(per_token_s.median()))


def _pairs(steps: pd.DataFrame) -> list[tuple[int, int]]:
    """(sequences, prompt tokens) of each step."""
    return list(zip(steps["sequences"].tolist(), steps["prompt_tokens"].tolist()))
