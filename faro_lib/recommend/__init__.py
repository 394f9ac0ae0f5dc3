"""What to run: replicas for the minutes to come, explained, and the capacity that a promise needs."""

from faro_lib.recommend.load_history import (
    History,
    history_from_csv,
    history_from_journal,
    history_from_prometheus,
    history_of,
)
from faro_lib.recommend.now import Advice, advise
from faro_lib.recommend.recommendation import Recommendation, recommend

__all__ = [
    "Advice",
    "History",
    "Recommendation",
    "advise",
    "history_from_csv",
    "history_from_journal",
    "history_from_prometheus",
    "history_of",
    "recommend",
]
