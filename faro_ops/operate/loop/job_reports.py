"""What the control loop itself notices about single jobs, for the board of job states."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from faro_lib import protocol
from faro_lib.control import GuardrailConfig, Step
from faro_lib.control.guardrails import Guard
from faro_lib.protocol import Observation
from faro_lib.workload import Job
from faro_ops.operate.job_states import CONTESTED, FAILING, FINE, GONE, MISSING, JobStates
from faro_ops.protocol import live_observation

SOURCE = "loop"  # of reports to the board of job states
FROM_ANSWERS = "answers"  # source of reports about requests that fail


def note_states(
    states: JobStates,
    jobs: tuple[Job, ...],
    config: GuardrailConfig,
    guard: Guard,
    step: Step,
    writer_of: Callable[[int], str | None],
) -> None:
    """Report the jobs that another client scales, that do not exist, or whose data is missing.

    guard : the state of the guardrails after the tick.
    writer_of : returns the name of the client that scaled a job; may raise.

    A job that is absent is not reported if another source knows why.
    """
    seen = live_observation(step.observation)
    held = np.zeros(len(jobs), bool) if seen.held is None else seen.held
    stale = (seen.now_s - guard.known_s > config.stale_after_s) & seen.exists
    contested = guard.contested(config) & seen.exists & ~held
    note_failures(states, jobs, seen)
    states.saw_data(job.name for job, since_s in zip(jobs, guard.known_s) if since_s == seen.now_s)
    for n, job in enumerate(jobs):
        before = states.of(job.name)
        if contested[n]:
            if before.state == CONTESTED:  # the name of the other client costs an API call
                continue
            wanted = step.target[n]
            reason = f"{writer(writer_of, n)} keeps setting {wanted} replicas; Faro leaves it alone"
            states.report(job.name, CONTESTED, reason, by=SOURCE)
        elif not seen.exists[n]:
            known = states.of(job.name, without=SOURCE).state not in (FINE, FAILING)
            reason = "its Deployment or application does not exist"
            states.report(job.name, FINE if known else GONE, reason, by=SOURCE)
        elif step.plan.reason[n] == protocol.MISSING and not stale[n]:
            reason = "its load or latency has not been known so far"
            states.report(job.name, MISSING, reason, by=SOURCE)
        elif stale[n]:
            reason = f"its load or latency is not known for more than {config.stale_after_s:g} s"
            states.report(job.name, MISSING, reason, by=SOURCE)
        else:
            states.clear(job.name, by=SOURCE)


def note_failures(states: JobStates, jobs: tuple[Job, ...], observation: Observation) -> None:
    """Report the jobs whose requests fail, or whose clients hang up, in the last complete minute.

    These are the jobs with more of such requests than half of what the SLO allows: nothing is
    learned from such a minute (`faro_lib.policies.evidence`).
    """
    if not observation.arrivals_per_min.shape[1]:
        return
    arrivals = observation.arrivals_per_min[:, -1]
    unknown = np.full(len(jobs), np.nan)
    failed, cancelled = (
        unknown if one is None else one
        for one in (observation.failed_per_min, observation.cancelled_per_min)
    )
    reasons = {}
    for n, job in enumerate(jobs):
        shares = [np.nan_to_num(one[n]) / max(arrivals[n], 1.0) for one in (failed, cancelled)]
        if sum(shares) > (1 - job.quantile) / 2:
            reasons[job.name] = failures_in_words(*shares)
    states.report_all(FAILING, reasons, by=FROM_ANSWERS)


def failures_in_words(failed: float, cancelled: float) -> str:
    """What happens to the requests of a failing job, from the shares of a minute's requests.

    >>> failures_in_words(0.021, 0.0)
    '2.1% of its requests fail; Faro does not take this for slowness'
    >>> failures_in_words(0.0, 0.3)
    'the clients of 30.0% of its requests hang up; Faro does not take this for slowness'
    """
    parts = []
    if failed > 0:
        parts.append(f"{failed:.1%} of its requests fail")
    if cancelled > 0:
        parts.append(f"the clients of {cancelled:.1%} of its requests hang up")
    return f"{', and '.join(parts)}; Faro does not take this for slowness"


def writer(writer_of: Callable[[int], str | None], job: int) -> str:
    """The name of the client that last scaled a job; a server that does not answer knows none."""
    with suppress(Exception):
        return writer_of(job) or "another client"
    return "another client"
