"""Decisions about pools: what shared replicas are worth, what they hold, and what is refused."""

from faro_lib.sharing.admission import Admission, admit
from faro_lib.sharing.placement import place

__all__ = ["Admission", "admit", "place"]
