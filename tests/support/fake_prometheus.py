"""A Prometheus that knows a query by the words in it, in place of the client or over HTTP."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from http_server import HttpServer, Request, serving

from faro_ops.http import HttpError, HttpTimeout
from faro_ops.prometheus import BadQuery, Series

# Faro asks several queries in one request, and marks the series of each with its number.
MARKED = re.compile(r'label_replace\((.*?), "faro_query", "(\d+)", "", ""\)')
# A number, a function of the Unix time, samples (Unix time, value), or None: no answer.
Value = float | Callable[[float], float] | Sequence[tuple[float, float]] | None


class FakePrometheus:
    """Answers queries with the values of their words.

    values : word -> what each query has that contains it.
    others : what a query has that contains none of these words.
    wrong : words of queries that are rejected.
    slow : words of queries that are not answered in time.
    silent : whether the server fails.
    asked : the marked queries of each request.
    """

    url = "http://prometheus"

    def __init__(self, values: Mapping[str, Value] | None = None, others: Value = None):
        self.values = dict(values or {})
        self.others = others
        self.wrong: set[str] = set()
        self.slow: set[str] = set()
        self.silent = False
        self.asked: list[list[str]] = []
        self._lock = threading.Lock()

    def of(self, query: str) -> list[Value]:
        """What a query has: one value for each series in its answer."""
        return [value for word, value in self.values.items() if word in query] or [self.others]

    def samples(self, query: str, times_s: Iterable[float]) -> list[tuple[str, list]]:
        """(number, samples) of each series that the marked queries have."""
        found = []
        times_s = list(times_s)
        for text, number in MARKED.findall(query):
            series = [(number, sampled(value, times_s)) for value in self.of(text)]
            found += [one for one in series if one[1]]
        return found

    def query_range(
        self, query: str, times_s: np.ndarray, within_s: float | None = None
    ) -> list[Series]:
        """As `faro_ops.prometheus.Prometheus.query_range`."""
        with self._lock:
            self.asked.append([text for text, _ in MARKED.findall(query)])
        if self.silent:
            raise HttpError(self.url, 503, "overloaded")
        if any(word in query for word in self.wrong):
            raise BadQuery("parse error")
        if any(word in query for word in self.slow):
            raise HttpTimeout(self.url, 0, f"no complete answer within {within_s:g} s")
        found = []
        for number, samples in self.samples(query, times_s):
            at = {when: value if math.isfinite(value) else np.inf for when, value in samples}
            values = np.array([at.get(when, np.nan) for when in times_s], float)
            found.append(({"faro_query": number}, values))
        return found

    def answer(self, form: Mapping[str, str]) -> dict[str, Any]:
        """The body of an answer to /api/v1/query_range."""
        first, last, step = (float(form[key]) for key in ("start", "end", "step"))
        times_s = [first + n * step for n in range(round((last - first) / step) + 1)]
        text = form["query"]
        series = [
            {
                "metric": {"faro_query": number},
                "values": [[when, f"{value:g}"] for when, value in samples],
            }
            for number, samples in self.samples(text, times_s)
        ]
        if not MARKED.search(text):  # vector(1)
            series = [{"metric": {}, "values": [[when, "1"] for when in times_s]}]
        return {"data": {"resultType": "matrix", "result": series}}

    def http(self, request: Request) -> tuple[int, dict]:
        if self.silent:
            return 503, {}
        if any(word in request.query["query"] for word in self.wrong):
            return 400, {"status": "error", "error": "parse error"}
        return 200, self.answer(request.query)

    def serving(self, host: str = "127.0.0.1") -> AbstractContextManager[HttpServer]:
        return serving(self.http, host)


def sampled(value: Value, times_s: list[float]) -> list[tuple[float, float]]:
    """The samples of a value at these times."""
    if value is None:
        return []
    if callable(value):
        return [(when, value(when)) for when in times_s]
    if isinstance(value, Sequence):
        return [(when, one) for when, one in value if times_s[0] <= when <= times_s[-1]]
    return [(when, value) for when in times_s]
