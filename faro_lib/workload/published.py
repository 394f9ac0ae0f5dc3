"""Reader of the two trace files of the published Faro artifact (EuroSys'25)."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np

from faro_lib.workload.jobs import Job, Traces

EVALUATION_SHA256 = "9370242f7291c94b04ed3c0329c45e1f286e7ca9aa92f126bf7c2b234b892b54"
TRAINING_SHA256 = "e8bfc249a15320d65ecf1017e48a5ae7bbed30724b54ea7599751a543fdaf5cf"
TRAINING_DAYS = 10  # the training file also contains the evaluation day, day 11


def read_artifact(evaluation: str | Path, training: str | Path) -> Traces:
    """Traces of ten jobs: days 1 to 10 (4 samples each) to train, day 11 (one sample) to evaluate.

    `evaluation` is the path of input.json. `training` is the path of the pickled data frame. A file
    with a wrong SHA-256 raises ValueError and is not unpickled, because unpickling can run code.
    """
    text = _verified(evaluation, EVALUATION_SHA256).decode()
    lines = [json.loads(line) for line in text.splitlines()]
    names = lines[0]["counts"]
    counts = np.array([[sum(line["counts"][name].values()) for line in lines] for name in names])
    table = pickle.loads(_verified(training, TRAINING_SHA256))
    functions = list(dict.fromkeys(table["hash_func"]))
    samples = table["sample"].nunique()
    days = np.zeros((TRAINING_DAYS + 1, samples, len(functions), counts.shape[1]), np.int64)
    for row in table.itertuples():
        days[row.day - 1, row.sample, functions.index(row.hash_func)] = row.counts
    if not np.array_equal(days[-1, 0], counts):
        raise ValueError(f"{training}: its day {len(days)} is not the day of {evaluation}")
    return Traces(tuple(Job(str(n)) for n in range(len(functions))), days[:-1], counts[None])


def _verified(path: str | Path, sha256: str) -> bytes:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; `make data` fetches it, or copy it there")
    content = path.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != sha256:
        raise ValueError(f"{path}: SHA-256 {checksum} is not {sha256}; the file was not opened")
    return content
