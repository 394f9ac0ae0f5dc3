"""The difference between two machines' clocks, measured by an exchange of messages.

Replicas, the statistics actor and the controller run on different nodes. Nothing is assumed about
the clocks of these nodes, except that they run equally fast between two exchanges. All measurements
are counted in the seconds of the statistics actor: each replica follows its clock, and the
controller converts its seconds.
"""

import time

# A slower exchange says too little about the clocks: the error is at most half of its duration.
MAX_EXCHANGE_S = 1.0
# A smaller change is within the error, and would move single seconds back and forth.
MIN_CHANGE_S = 1.0


def offset_after(offset_s: float, sent_s: float, received_s: float, theirs_s: float) -> float:
    """Another clock's time minus ours, in seconds, after an exchange of messages.

    offset_s : the offset so far; it stays if the exchange was slow or confirms it.
    sent_s, received_s : our time when the question was sent and when the answer arrived.
    theirs_s : the other clock's time when it answered.

    >>> offset_after(0.0, 100.0, 100.2, 80.1), offset_after(0.0, 100.0, 120.0, 120.0)
    (-20.0, 0.0)
    """
    if not 0 <= received_s - sent_s <= MAX_EXCHANGE_S:
        return offset_s
    measured_s = theirs_s - (sent_s + received_s) / 2
    return measured_s if abs(measured_s - offset_s) >= MIN_CHANGE_S else offset_s


class FollowingClock:
    """A clock that follows another one. Jumps of this machine's wall clock do not move it."""

    def __init__(self) -> None:
        self.has_heard = False  # whether there was an exchange
        self._offset_s = time.time() - time.monotonic()

    def now_s(self) -> float:
        """The other clock's Unix time; this machine's until `heard` was called."""
        return time.monotonic() + self._offset_s

    def heard(self, sent_s: float, received_s: float, theirs_s: float) -> bool:
        """Follow the other clock after an exchange; return whether this clock was set.

        sent_s, received_s : by `time.monotonic()`.
        """
        before_s = self._offset_s
        self._offset_s = offset_after(before_s, sent_s, received_s, theirs_s)
        self.has_heard = True
        return self._offset_s != before_s
