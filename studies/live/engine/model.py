"""llama.cpp as a model of Ray Serve: a real engine on the CPU that batches continuously.

    serve:
      import_path: studies.live.engine.model:Engine
      args: {lengths: {prompt_tokens: 60, output_tokens: 20}, slots: 8}

Its model has random weights (`random_model`) and is written when it is first needed.
"""

import asyncio
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from faro_lib.workload.replicas import Continuous
from studies.live.engine.random_model import FIRST_WORD, WORDS, Size, write_model

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MAX_REQUESTS = 512  # in the engine, served or waiting for a slot
TIMINGS = "timings: "  # begins the last part of an answer to a request that asks for timings
# Of llama.cpp's timings of a token: prompt tokens and milliseconds, and tokens and milliseconds of
# the output so far.
TIMINGS_OF_TOKEN = ("prompt_n", "prompt_ms", "predicted_n", "predicted_ms")
TOKEN_COLUMNS = ("request", "heard_s", *TIMINGS_OF_TOKEN)
BATCH_TOKENS = 2048  # most prompt tokens in an iteration, llama.cpp's default n_batch


def check_engine() -> None:
    """Raise ValueError unless the packages of the extra `llm` are installed."""
    try:
        import gguf  # noqa: F401
        import xllamacpp  # noqa: F401
    except ImportError:
        raise ValueError("the engine needs xllamacpp: pip install 'faro_lib[llm]'") from None


def model_file(size: Size | None = None) -> Path:
    """The file of a model of this size with random weights; written if it does not exist."""
    size = size or Size()
    name = "-".join(str(value) for value in asdict(size).values())
    path = Path(tempfile.gettempdir()) / f"faro-random-llama-{name}.gguf"
    if not path.exists():
        write_model(path, size)
    return path


class Engine:
    """One instance of llama.cpp with a thread of its own; it streams an answer token by token.

    lengths : fields of `workload.replicas.Continuous` for prompts and outputs; requests draw theirs
        in the order of their arrival. A request may state them instead, in a body of JSON such as
        {"prompt_tokens": 100, "output_tokens": 20}. With "timings": true, the last part of the
        answer is what llama.cpp measured. With "seed": 3, the draws begin again with this seed.
    slots : sequences at the same time (max_sequences).
    size : fields of `random_model.Size`.
    record : folder for a file per engine with a row of TOKEN_COLUMNS for every token; None = none.
    """

    def __init__(
        self,
        lengths: Mapping[str, Any],
        slots: int = 8,
        size: Mapping[str, int] | None = None,
        seed: int = 0,
        record: str | None = None,
    ):
        check_engine()
        import xllamacpp

        of_model = Size(**(size or {}))
        self._kind = Continuous(1.0, 0.0, 0.0, slots, **dict(lengths))
        self._rng = np.random.default_rng(seed)
        self._threads = ThreadPoolExecutor(MAX_REQUESTS)
        self._requests = itertools.count()
        self._record: TextIO | None = None
        if record:
            path = Path(record) / f"{os.getpid()}.csv"
            self._record = path.open("w", buffering=1)  # a line at a time
        settings = xllamacpp.CommonParams()
        settings.model.path = str(model_file(of_model))
        settings.n_parallel = slots
        settings.n_ctx = slots * of_model.context
        settings.n_batch = BATCH_TOKENS
        # One cache for all slots: otherwise llama.cpp computes slots that are not neighbours apart,
        # and a step of two sequences takes as long as two steps.
        settings.kv_unified = True
        settings.cpuparams.n_threads = 1
        settings.cpuparams_batch.n_threads = 1
        settings.cache_ram_mib = 0  # prompts are not kept
        settings.port = 0  # any free one; requests do not come by it
        began_s = time.perf_counter()
        self._server = xllamacpp.Server(settings)
        self.load_s = time.perf_counter() - began_s

    async def __call__(self, request: "Request") -> "Response":
        from starlette.responses import StreamingResponse

        body = await request.body()
        asked = json.loads(body) if body else {}
        if "seed" in asked:
            self._rng = np.random.default_rng(asked["seed"])
        if "prompt_tokens" in asked:
            prompt, output = asked["prompt_tokens"], asked["output_tokens"]
        else:
            prompt, output = (int(row[0]) for row in self._kind.lengths(self._rng, 1))
        return StreamingResponse(self._answer(prompt, output, asked.get("timings", False)))

    async def _answer(self, prompt: int, output: int, timings: bool) -> AsyncIterator[str]:
        """The parts of an answer: its tokens, and what llama.cpp measured if `timings`."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Any] = asyncio.Queue()
        left = threading.Event()  # the client has gone
        number = next(self._requests)

        def hear(event: Any) -> bool:
            """Called in a thread of this request with each event; True ends the generation."""
            if self._record and event and "timings" in event:
                of_token = [event["timings"][name] for name in TIMINGS_OF_TOKEN]
                row = number, time.perf_counter(), *of_token
                self._record.write(",".join(map(str, row)) + "\n")
            loop.call_soon_threadsafe(events.put_nowait, event)
            return left.is_set()

        def complete() -> None:
            try:
                asked = _completion(prompt, output) | {"timings_per_token": bool(self._record)}
                self._server.handle_completions(asked, hear)
                hear(None)
            except Exception as error:
                hear(error)

        loop.run_in_executor(self._threads, complete)
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                if "choices" not in event:
                    raise RuntimeError(f"the engine answers {str(event)[:200]}")
                if text := event["choices"][0]["text"]:
                    yield text
                if timings and event["choices"][0]["finish_reason"]:
                    yield TIMINGS + json.dumps(event["timings"] | {"load_s": self.load_s})
        finally:
            left.set()


def _completion(prompt: int, output: int) -> dict[str, Any]:
    """A request to llama.cpp: a prompt of random words' tokens and exactly `output` tokens."""
    words = np.random.default_rng(prompt).integers(FIRST_WORD, FIRST_WORD + WORDS, prompt)
    return {
        "prompt": words.tolist(),
        "n_predict": output,
        "ignore_eos": True,
        "cache_prompt": False,
        "temperature": 0.0,
        "stream": True,
    }
