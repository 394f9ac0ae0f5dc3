"""Send many queries to Prometheus in few requests. A wrong or slow query costs only its own answer.

Up to BATCH queries share a request: a tick of 200 jobs has up to 2,400 queries, which take 0.1 s in
batches and 2.6 s one by one, on a server that answers at once. If a batch fails, its queries are
asked alone. Those that fail or are slow then stay alone until they have been quick for a while.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from faro_ops.http import HttpError, HttpTimeout
from faro_ops.prometheus import BadQuery, Prometheus

BATCH = 50  # most queries in one request
THREADS = 4
MARK = "faro_query"  # label added to each series: the index of the series' query in its batch
BUDGET_S = 8.0  # seconds for all queries of a tick
SHORTEST_S = 0.1  # no request is sent if it may take less
SLOW_S = 1.0  # a query that takes longer is asked alone
QUICK_ANSWERS = 30  # after so many quick answers, a query is no longer asked alone
TOO_LARGE = 413  # HTTP status

Key = tuple[str, int]  # identifies a question from one tick to the next


@dataclass(frozen=True, slots=True)
class Question:
    """A PromQL query whose value is wanted at evenly spaced Unix times."""

    key: Key
    query: str
    times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The values (times,) of a query: NaN where missing, inf if not finite, such as 0/0."""

    values: np.ndarray
    # Why all values are missing, as the end of a sentence that begins with "query QUERY".
    problem: str = ""


class Unanswered(Exception):
    """A request without an answer. `by_query`: one of its queries may be the cause."""

    def __init__(self, reason: str, by_query: bool):
        super().__init__(reason)
        self.by_query = by_query


class LostBatch(NamedTuple):
    """A batch without an answer, and why; `by_query` as in Unanswered."""

    batch: list[Question]
    reason: str
    by_query: bool


class QueryBatches:
    """Asks questions of one Prometheus server, and remembers which ones to ask alone.

    timeout_s : longest time of one request.
    budget_s : longest time of a call of `ask`.
    """

    def __init__(
        self,
        prometheus: Prometheus,
        timeout_s: float,
        budget_s: float = BUDGET_S,
        clock_s: Callable[[], float] = time.monotonic,
    ):
        self._prometheus = prometheus
        self._timeout_s = timeout_s
        self._budget_s = budget_s
        self._clock_s = clock_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="prometheus")
        # Questions that are asked alone -> quick answers until that ends.
        self._alone: dict[Key, int] = {}

    def ask(self, questions: Iterable[Question]) -> dict[Key, Answer]:
        """The answers to the questions, by their keys."""
        until_s = self._clock_s() + self._budget_s
        answers, failed = self._asked(self._batches(questions), until_s)
        lost = [one for one in failed if len(one.batch) == 1 or not one.by_query]
        divided = [one.batch for one in failed if one not in lost]
        if divided and not answers and not self._is_alive(until_s):
            lost += [LostBatch(batch, "Prometheus answers no query", False) for batch in divided]
        else:
            alone, lost_alone = self._asked([[one] for batch in divided for one in batch], until_s)
            answers |= alone
            lost += lost_alone
        if answers:  # else the server failed, not a query
            self._stay_alone(one.batch[0].key for one in lost if one.by_query)
        for batch, reason, _ in lost:
            answers |= {one.key: missing(one, f": {reason}") for one in batch}
        return answers

    def _asked(
        self, batches: list[list[Question]], until_s: float
    ) -> tuple[dict[Key, Answer], list[LostBatch]]:
        """The answers to batches, and the batches without one."""
        answers: dict[Key, Answer] = {}
        failed = []
        replies = self._threads.map(lambda batch: self._reply(batch, until_s), batches)
        for batch, reply in zip(batches, replies):
            if isinstance(reply, Unanswered):
                failed.append(LostBatch(batch, str(reply), reply.by_query))
            else:
                answers |= reply
        return answers, failed

    def _batches(self, questions: Iterable[Question]) -> list[list[Question]]:
        """Batches of questions with the same times; some questions are alone."""
        batches: list[list[Question]] = []
        groups: dict[tuple[float, ...], list[Question]] = {}
        for one in questions:
            if one.key in self._alone:
                batches.append([one])
            else:
                groups.setdefault(one.times_s, []).append(one)
        for group in groups.values():
            batches += [group[first : first + BATCH] for first in range(0, len(group), BATCH)]
        return batches

    def _stay_alone(self, keys: Iterable[Key]) -> None:
        self._alone |= dict.fromkeys(keys, QUICK_ANSWERS)

    def _reply(self, batch: list[Question], until_s: float) -> dict[Key, Answer] | Unanswered:
        """The answers to a batch, or why there are none. One request may take half of the time."""
        began_s = self._clock_s()
        within_s = min(self._timeout_s, (until_s - began_s) / 2)
        if within_s < SHORTEST_S:
            return Unanswered("no time was left for it in this tick", by_query=False)
        try:
            answers = self._answers(batch, within_s)
        except Unanswered as failure:
            return failure
        self._learn([one.key for one in batch], self._clock_s() - began_s)
        return answers

    def _learn(self, keys: Sequence[Key], took_s: float) -> None:
        """Note how quickly a question that was asked alone has been answered."""
        if len(keys) > 1:
            return
        (key,) = keys
        if took_s > SLOW_S:
            self._stay_alone(keys)
        elif key in self._alone:
            self._alone[key] -= 1
            if self._alone[key] == 0:
                del self._alone[key]

    def _answers(self, batch: list[Question], within_s: float) -> dict[Key, Answer]:
        """Answers of one request that joins the queries by `or`; raises Unanswered.

        The label MARK tells the queries' series apart.
        """
        marked = [
            f'label_replace({one.query}, "{MARK}", "{i}", "", "")' for i, one in enumerate(batch)
        ]
        times_s = np.array(batch[0].times_s)
        try:
            series = self._prometheus.query_range(" or ".join(marked), times_s, within_s)
            rows: dict[int, list[np.ndarray]] = {}  # index of a query -> values of its series
            for labels, values in series:
                rows.setdefault(int(labels[MARK]), []).append(values)
        except (BadQuery, HttpTimeout) as error:
            raise Unanswered(str(error), by_query=True) from None
        except HttpError as error:
            by_query = error.status >= 500 or error.status == TOO_LARGE
            raise Unanswered(str(error), by_query) from None
        except (OSError, KeyError, ValueError) as error:
            raise Unanswered(str(error) or type(error).__name__, by_query=False) from None

        answers: dict[Key, Answer] = {}
        for i, one in enumerate(batch):
            found = rows.get(i, [])
            if len(found) == 1:
                answers[one.key] = Answer(found[0])
            else:
                several = " has several answers; one is needed: sum(...)" if found else ""
                answers[one.key] = missing(one, several)
        return answers

    def _is_alive(self, until_s: float) -> bool:
        """Whether Prometheus answers the simplest query."""
        within_s = max(SHORTEST_S, min(self._timeout_s, (until_s - self._clock_s()) / 2))
        try:
            self._prometheus.query_range("vector(1)", np.array([time.time()]), within_s)
        except (OSError, ValueError):
            return False
        return True


def missing(question: Question, problem: str) -> Answer:
    return Answer(np.full(len(question.times_s), np.nan), problem)
