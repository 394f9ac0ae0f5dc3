"""`faro run`: the autoscaling loop on a live cluster."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from faro_ops.cli.from_model import takes
from faro_ops.cli.shared import use_authority
from faro_ops.log import use_log_format
from faro_ops.run_options import RunOptions

if TYPE_CHECKING:
    from faro_lib.control import Step
    from faro_lib.workload import Job


@takes(RunOptions)
def run(options: RunOptions) -> None:
    """Run the autoscaling loop; without --apply, only print its plans.

    SIGTERM or Ctrl-C stops the loop; the replicas then stay as they are.
    """
    from faro_ops.operate.controller.controller import Controller

    use_log_format(options.log)
    if options.ca_file is not None:
        use_authority(options.ca_file)
    show = partial(printing, options.apply)
    if options.watch:
        from faro_ops.cli.view import check_terminal, watching

        check_terminal()
        title = options.policy if options.apply else f"{options.policy}, dry run"
        show = partial(watching, title=title)
    with ExitStack() as resources:
        Controller(options, resources, show).run()


@contextmanager
def printing(applied: bool, jobs: "tuple[Job, ...]") -> "Iterator[Callable[[Step], None]]":
    """Yield the function that prints each step."""
    yield partial(print_step, jobs, applied)


def print_step(jobs: "tuple[Job, ...]", applied: bool, step: "Step") -> None:
    """Print a tick as a line of JSON: its time, whether it was applied, and each job's plan."""
    plan = {
        job.name: {"replicas": int(target), "drop": round(float(drop), 4), "reason": reason}
        for job, target, drop, reason in zip(jobs, step.target, step.plan.drop, step.plan.reason)
    }
    tick = {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "now_s": step.observation.now_s,
        "applied": applied and step.error is None,
        "plan": plan,
    }
    print(json.dumps(tick), flush=True)
