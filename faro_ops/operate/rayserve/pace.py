"""When a replica of a pool is almost free, from the requests that it has answered."""

import math

NEWEST = 0.1  # weight of the newest request in the means
# The next request is sent this many times the path's mean time before the service should end,
# because that time varies.
SPARE = 2.0


class Pace:
    """Exponentially weighted means of service times, by job, and of the path's time.

    The path's time is what a request takes to the replica and back, besides service and wait there.
    """

    def __init__(self) -> None:
        self._service_s: dict[str, float] = {}
        self._path_s: float | None = None

    def note(self, job: str, service_s: float, path_s: float) -> None:
        """Note a request that was answered, with its times in seconds."""
        before_s = self._service_s.get(job, service_s)
        self._service_s[job] = before_s + NEWEST * (service_s - before_s)
        path_s = max(path_s, 0.0)
        before_s = path_s if self._path_s is None else self._path_s
        self._path_s = before_s + NEWEST * (path_s - before_s)

    def free_after_s(self, job: str) -> float:
        """Seconds after a request begins until its replica should get the next one.

        Infinity, which means when the request has ended, if no request of the job was answered yet.
        """
        if self._path_s is None or job not in self._service_s:
            return math.inf
        return max(0.0, self._service_s[job] - SPARE * self._path_s)
