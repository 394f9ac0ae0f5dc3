"""Kinds of replica of measured GPUs: from times of prompts and tokens to `Continuous`.

A table of measurements has a row for each run of one batch: `model`, `hardware` (the GPU),
`tensor_parallel`, `prompt_size` (tokens of each prompt), `batch_size`, `prompt_time` (ms until the
first tokens) and `token_time` (ms per later token of each sequence). The column `cache_tokens`, the
size of the KV cache, may be added.

A step takes D(n) + P(p) with n sequences in service and p tokens of new prompts. D is the token
time by batch, and D(1) + P(p) the prompt time by length. Both go through the medians of the runs,
made monotone, by the monotone cubic of Fritsch and Carlson (SIAM J. Numer. Anal. 17, 1980), and are
stored with knees at the measured points and between them.

Several prompts are assumed to take as long as one prompt with as many tokens. Where both were
measured, `GpuFit.several` is the ratio of the times. Divided by its median, a batch of prompts is a
point of P where no single prompt was measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

KIND = ["hardware", "model", "tensor_parallel"]
SIZES = ["prompt_size", "batch_size"]
TIMES = ["prompt_time", "token_time"]
# Bytes of the weights and of the KV cache of a token, in 16 bits: Llama 2 has 69.0e9 parameters, 80
# layers and 8 heads of 128 for keys and for values (arXiv 2307.09288); BLOOM 176.2e9, 70 layers
# and 112 heads of 128 (arXiv 2211.05100).
MODELS = {
    "llama2-70b": (2 * 69.0e9, 2 * 2 * 80 * 8 * 128),
    "bloom-176b": (2 * 176.2e9, 2 * 2 * 70 * 112 * 128),
}
GPU_BYTES = {"a100-80gb": 80 * 2**30, "h100-80gb": 80 * 2**30, "h100-80gb-pcap": 80 * 2**30}
USED_MEMORY = 0.9  # share of the memory that an engine uses, vLLM's default
FALLS = 0.9  # a batch that takes less than this share of the time of half of it was split up
LEVELS = (5, 50, 95)  # percentiles of an interval of 90 %
RESAMPLES = 1000
DIGITS = 4  # significant digits of stored numbers


@dataclass(frozen=True, slots=True)
class GpuFit:
    """The replica of one GPU, model and tensor parallelism, and how well it fits.

    The errors are relative, of interior points that were left out in turn: predicted / measured -1.
    """

    names: tuple[str, str, int]  # GPU, model, tensor parallelism
    replica: dict[str, Any]  # the fields of `Continuous` without the lengths of requests
    prompt_errors: tuple[float, ...]
    token_errors: tuple[float, ...]
    line_errors: tuple[float, ...]  # of prompt and token times by straight lines
    longest_prompt: int  # tokens of the longest measured prompt
    largest_batch: int  # of those that ran as one batch
    split_batch: int | None  # smallest batch that did not
    # Time of several prompts over that of one with as many tokens: smallest, median and largest;
    # None if the same number was never measured in both ways.
    several: tuple[float, float, float] | None
    # Low end, median and high end of the 90 % interval, by resampled runs (bootstrap), in ms: of a
    # step of one sequence, of the largest batch, and of the longest prompt.
    step_one_ms: tuple[float, float, float]
    step_most_ms: tuple[float, float, float]
    prompt_ms: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """The entry of `faro_lib/workload/gpus.yaml`."""
        gpu, model, parallel = self.names
        entry: dict[str, Any] = {"gpu": gpu, "model": model, "tensor_parallel": parallel}
        entry["replica"] = self.replica
        for name in ("prompt_errors", "token_errors", "line_errors"):
            entry[name] = [round(error, 4) for error in getattr(self, name)]
        for name in ("longest_prompt", "largest_batch", "split_batch"):
            entry[name] = getattr(self, name)
        for name in ("several", "step_one_ms", "step_most_ms", "prompt_ms"):
            value = getattr(self, name)
            entry[name] = value and [_rounded(one) for one in value]
        return entry


def read_runs(path: str | Path) -> pd.DataFrame:
    """The rows of a table of measurements; ValueError, with the line, for one that is wrong."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{path}: no such file") from None
        raise ValueError(f"{path}: not a table ({str(error).splitlines()[0]})") from None
    for column in [*KIND, *SIZES, *TIMES]:
        if column not in table:
            needed = ", ".join([*KIND, *SIZES, *TIMES])
            raise ValueError(f"{path}: column {column!r} is missing; needed: {needed}")
    if table.empty:
        raise ValueError(f"{path}: no rows; expected one for each run of a batch")
    optional = [column for column in ("cache_tokens", "token_size") if column in table]
    for column in [KIND[2], *SIZES, *TIMES, *optional]:
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        wrong = ~(np.isfinite(values) & (values > 0) & (values < 1e12))
        if column not in TIMES:
            wrong |= values % 1 != 0
        if wrong.any():
            line = int(wrong.argmax())
            kind = "a number > 0" if column in TIMES else "a whole number > 0"
            raise ValueError(
                f"{path}, line {line + 2}: {column}={table[column].iloc[line]!r} is not {kind}"
            )
        table[column] = values if column in TIMES else values.astype(np.int64)
    return table


def fit_gpus(runs: pd.DataFrame) -> list[GpuFit]:
    """A fit for each GPU, model and tensor parallelism; ValueError if one has too few points."""
    return [_fit(names, of_kind) for names, of_kind in runs.groupby(KIND)]


@dataclass(frozen=True, slots=True)
class _Points:
    """Medians of the runs of one kind."""

    n: np.ndarray  # batch sizes, rising
    step_ms: np.ndarray  # token time of each
    prompt: np.ndarray  # (points,) tokens of each prompt
    batch: np.ndarray  # (points,) number of prompts
    prompt_ms: np.ndarray  # (points,)

    @classmethod
    def of(cls, runs: pd.DataFrame) -> "_Points":
        medians = runs.groupby(SIZES)[TIMES].median().reset_index()
        by_batch = medians[medians["prompt_size"] == _batched_at(runs)]
        return cls(
            by_batch["batch_size"].to_numpy(float),
            by_batch["token_time"].to_numpy(),
            medians["prompt_size"].to_numpy(float),
            medians["batch_size"].to_numpy(float),
            medians["prompt_time"].to_numpy(),
        )

    def ratios(self) -> np.ndarray:
        """Times of several prompts over that of one with as many tokens, where both are known."""
        alone = {p: t for p, b, t in zip(self.prompt, self.batch, self.prompt_ms) if b == 1}
        several = zip(self.prompt * self.batch, self.batch, self.prompt_ms)
        return np.array([t / alone[p] for p, b, t in several if b > 1 and p in alone])

    def prompt_curve(self, but: int | None = None) -> Callable:
        """Time of one prompt by its tokens; `but` is the position of a point to leave out."""
        kept = self if but is None else self.without(but)
        ratios = kept.ratios()
        ratio = float(np.median(ratios)) if len(ratios) else 1.0
        measured_ms = {}
        for p, b, time_ms in zip(kept.prompt, kept.batch, kept.prompt_ms):
            if b == 1:
                measured_ms[p] = time_ms
            else:
                measured_ms.setdefault(p * b, time_ms / ratio)
        x = np.sort(list(measured_ms))
        return _monotone(x, np.array([measured_ms[tokens] for tokens in x]))

    def without(self, point: int) -> "_Points":
        kept = np.arange(len(self.prompt)) != point
        of_prompts = (self.prompt[kept], self.batch[kept], self.prompt_ms[kept])
        return _Points(self.n, self.step_ms, *of_prompts)


def _batched_at(runs: pd.DataFrame) -> int:
    """The prompt length at which most batch sizes were measured."""
    return int(runs.groupby("prompt_size")["batch_size"].nunique().idxmax())


def _split_batch(runs: pd.DataFrame) -> int | None:
    """The smallest batch whose prompts took less time than those of half of it."""
    at = runs[runs["prompt_size"] == _batched_at(runs)]
    medians = at.groupby("batch_size")["prompt_time"].median()
    falls = medians.to_numpy()[1:] < FALLS * medians.to_numpy()[:-1]
    return int(medians.index[1:][falls][0]) if falls.any() else None


def _fit(names: Any, runs: pd.DataFrame) -> GpuFit:
    gpu, model, parallel = names
    where = f"{gpu}, {model}, tensor_parallel {parallel}"
    split = _split_batch(runs)
    if split is not None:
        runs = runs[runs["batch_size"] < split]
    points = _Points.of(runs)
    alone = np.flatnonzero(points.batch == 1)  # rising by prompt length
    if len(points.n) < 3 or len(alone) < 3 or points.n[0] != 1:
        needed = "three batch sizes from 1 on at one prompt length, and three lengths at batch 1"
        raise ValueError(f"{where}: too few measurements; needed are {needed}")

    ratios = points.ratios()
    several = (ratios.min(), np.median(ratios), ratios.max()) if len(ratios) else None
    return GpuFit(
        names=(str(gpu), str(model), int(parallel)),
        replica=_replica(points, _cache_tokens(runs, names, split)),
        prompt_errors=tuple(
            float(points.prompt_curve(i)(points.prompt[i]) / points.prompt_ms[i] - 1)
            for i in alone[1:-1]
        ),
        token_errors=_left_out(points.n, points.step_ms, _monotone),
        line_errors=_left_out(points.n, points.step_ms, _straight)
        + _left_out(points.prompt[alone], points.prompt_ms[alone], _straight),
        longest_prompt=int(points.prompt[alone[-1]]),
        largest_batch=int(points.n[-1]),
        split_batch=split,
        several=several,
        step_one_ms=_interval(runs, "token_time", _batched_at(runs), 1),
        step_most_ms=_interval(runs, "token_time", _batched_at(runs), points.n[-1]),
        prompt_ms=_interval(runs, "prompt_time", points.prompt[alone[-1]], 1),
    )


def _interval(
    runs: pd.DataFrame, time: str, prompt: float, batch: float
) -> tuple[float, float, float]:
    """Low end, median and high end of the interval of a median time at one size."""
    times = runs[(runs["prompt_size"] == prompt) & (runs["batch_size"] == batch)][time].to_numpy()
    resampled = np.random.default_rng(0).choice(times, (RESAMPLES, len(times)))
    low, middle, high = np.percentile(np.median(resampled, axis=1), LEVELS)
    return float(low), float(middle), float(high)


def _monotone(x: np.ndarray, y: np.ndarray) -> Callable:
    """The monotone cubic through the points, made monotone by isotonic regression."""
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import isotonic_regression

    return PchipInterpolator(x, isotonic_regression(y).x)


def _straight(x: np.ndarray, y: np.ndarray) -> Callable:
    """The line with the smallest squared relative errors."""
    return np.poly1d(np.polyfit(x, y, 1, w=1 / y))


def _left_out(x: np.ndarray, y: np.ndarray, curve: Callable) -> tuple[float, ...]:
    """Relative error of each interior point, predicted from all others."""
    inside = range(1, len(x) - 1)
    return tuple(float(curve(np.delete(x, i), np.delete(y, i))(x[i]) / y[i] - 1) for i in inside)


def _replica(points: _Points, cache_tokens: int) -> dict[str, Any]:
    """The fields of `Continuous`; the step of one sequence is part of a prompt's time."""
    n = _refined(points.n)
    step_s = _monotone(points.n, points.step_ms)(n) / 1000
    tokens = _refined(np.unique(points.prompt * points.batch))
    prompt_s = np.maximum(points.prompt_curve()(tokens) / 1000 - step_s[0], 0.0)
    beta_s, beta_knees = _knees(n, step_s)
    gamma_s, gamma_knees = _knees(np.append(0.0, tokens), np.append(0.0, prompt_s))
    return {
        "kind": "continuous",
        "alpha_s": _rounded(step_s[0] - beta_s),
        "beta_s": beta_s,
        "gamma_s": gamma_s,
        "max_sequences": int(points.n[-1]),
        "beta_knees": beta_knees,
        "gamma_knees": gamma_knees,
        "cache_tokens": cache_tokens,
    }


def _refined(x: np.ndarray) -> np.ndarray:
    """The points, and one between each two, halfway in the logarithm."""
    return np.sort(np.concatenate([x, np.sqrt(x[1:] * x[:-1])]))


def _knees(x: np.ndarray, y: np.ndarray) -> tuple[float, list[list[float]]]:
    """First slope of the line through the points, and a pair (x, change of the slope) at each."""
    slopes = [_rounded(slope) for slope in np.diff(y) / np.diff(x)]
    changes = [(at, after - before) for at, before, after in zip(x[1:], slopes, slopes[1:])]
    return slopes[0], [[_rounded(at), float(f"{change:.6g}")] for at, change in changes if change]


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _cache_tokens(runs: pd.DataFrame, names: Any, split: int | None) -> int:
    """Tokens that the KV cache holds: as measured, or the memory that the weights leave.

    If a batch was split up, no more than the largest batch before it held, and that much as well if
    neither the GPU nor the model is known.
    """
    if "cache_tokens" in runs:
        return int(runs["cache_tokens"].min())
    generated = runs.get("token_size", 0)
    held = int((runs["batch_size"] * (runs["prompt_size"] + generated)).max())
    gpu, model, parallel = names
    if split is not None or gpu not in GPU_BYTES or model not in MODELS:
        return held
    weights, of_token = MODELS[model]
    return int((USED_MEMORY * parallel * GPU_BYTES[gpu] - weights) / of_token)
