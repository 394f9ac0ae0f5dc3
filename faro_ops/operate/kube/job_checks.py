"""What is wrong with single jobs that are Deployments, looked up at every tick.

Nothing here raises because of one job. A job is *gone* if its Deployment does not exist. It is
*contested* if an HPA scales it although Faro would. It is *misconfigured* if its section
`deployment` is invalid, if Faro may not change it, or if Faro cannot set the bounds of its HPA.
Faro holds such a job (`LiveObservation.held`), or knows that it does not exist, and scales it again
at the next tick after this is put right. shape.py finds what is wrong with pod templates.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from faro_lib.workload import Job
from faro_ops.operate.background import in_thread
from faro_ops.operate.job_states import CONTESTED, GONE, MISCONFIGURED
from faro_ops.operate.kube.client import Api, ApiError
from faro_ops.operate.kube.deployment_metrics import WINDOW, Queries
from faro_ops.operate.kube.deployments import DeploymentRef, Deployments
from faro_ops.operate.kube.hpa_bounds import BoundedDeployments, check_bounded
from faro_ops.operate.kube.preflight import Permission, missing_permissions, rules

LOG = logging.getLogger(__name__)
RECHECK_S = 60.0  # seconds between questions about a permission that is missing
# Nothing is asked, so the job's data is missing. `Queries(...)` would refuse it.
NO_QUERIES = Queries.model_construct(requests="", latency_mean_s="")
READABLE = ("namespace", "name", "autoscaler", "resource")  # keys that are used without the others


@dataclass(frozen=True, slots=True)
class Finding:
    """The jobs that one check finds in one state.

    source : name of the check, for the board of job states.
    reasons : index of the job -> one line.
    held : whether Faro keeps these jobs' replicas.
    """

    source: str
    state: str
    reasons: Mapping[int, str]
    held: bool


Checks = Callable[[], Sequence[Finding]]

# --- sections of the jobs' table ------------------------------------------------------------------


def refs_of(
    jobs: Iterable[Job], sections: Mapping[str, dict], namespace: str
) -> tuple[list[DeploymentRef], dict[int, str]]:
    """The jobs' Deployments, and the problems of the sections that cannot be used as they are.

    namespace : of Deployments whose section names none.

    The problems are by index of the job. The Deployment of such a job is still read, so that its
    replicas count, unless the section does not name one that Faro may read: then its name is "".
    """
    refs: list[DeploymentRef] = []
    problems: dict[int, str] = {}
    for n, job in enumerate(jobs):
        section = sections.get(job.name, {})
        try:
            refs.append(DeploymentRef.of(job, section, namespace))
        except ValueError as error:
            problems[n] = str(error)
            refs.append(readable(job, section, namespace))

    fine = [ref for n, ref in enumerate(refs) if n not in problems] or refs
    shared = Counter(ref.namespace for ref in fine).most_common(1)[0][0] if refs else namespace
    resource = Counter(ref.resource for ref in fine).most_common(1)[0][0] if refs else "cpu"
    owners: dict[str, str] = {}  # namespace/name of a Deployment -> the first job that names it
    for n, ref in enumerate(refs):
        job = ref.job
        owner = owners.setdefault(str(ref), job.name) if ref.name else job.name
        why = "differs from {!r} of the other jobs; jobs that share capacity share one"
        if ref.namespace != shared:
            problem = f"deployment.namespace={ref.namespace!r} {why.format(shared)}"
        elif ref.resource != resource:
            problem = f"deployment.resource={ref.resource!r} {why.format(resource)}"
        elif owner != job.name:
            problem = f"its Deployment '{ref}' is that of job {owner!r}; each job needs its own"
        else:
            continue
        problems.setdefault(n, f"job {job.name!r}: {problem}")
        if ref.namespace != shared or owner != job.name:  # not to be read, or read already
            refs[n] = replace(ref, namespace=shared, name="")
        refs[n] = replace(refs[n], resource=resource)
    return refs, problems


def readable(job: Job, section: Mapping[str, object], namespace: str) -> DeploymentRef:
    """The Deployment of a job whose section is invalid: without queries, maybe without a name."""
    given = section if isinstance(section, Mapping) else {}
    kept = {key: given[key] for key in READABLE if isinstance(given.get(key), str)}
    queries = {"requests": WINDOW, "latency_mean_s": WINDOW, "latency_s": WINDOW}
    try:
        ref = DeploymentRef.of(job, kept | {"queries": queries}, namespace)
    except ValueError:
        ref = DeploymentRef(job, namespace, "", NO_QUERIES)
    return replace(ref, queries=NO_QUERIES)


# --- permissions on single objects ----------------------------------------------------------------


class ObjectPermissions:
    """Whether this client may change each job's Deployment, or its HPA.

    A permission that is missing or unknown is asked for again every RECHECK_S seconds, in a thread,
    so that no tick waits for the answers.

    wanted : permissions; those of verbs that a Role limits to objects with certain names count.
    """

    def __init__(self, api: Api, wanted: Sequence[Permission]):
        self._api = api
        self._wanted = wanted
        self._known: dict[tuple[str, str], str] = {}  # (namespace, name) -> problem; "" if none
        self._asked_s = float("-inf")  # monotonic time
        self._asking: Future[None] | None = None

    def ask(self, objects: Iterable[tuple[str, str]]) -> None:
        """Ask about the objects (namespace, name) whose permissions are missing or unknown.

        An API server that does not answer leaves them unknown.
        """
        self._asked_s = time.monotonic()
        for namespace, name in objects:
            if self._known.get((namespace, name)) == "":
                continue
            try:
                self._known[namespace, name] = self._problem(namespace, name)
            except ApiError as error:
                LOG.info("permissions are not known yet: %s", error)
                return

    def _problem(self, namespace: str, name: str) -> str:
        names = {resource: [name] for _, resource, _ in self._wanted}
        named = rules(self._wanted, names)
        of_object = [one for one in named if one[3]]
        return next(missing_permissions(self._api, namespace, of_object), "")

    def doubt(self, namespace: str, name: str) -> None:
        """Ask again about an object, because the server has refused a change of it."""
        self._known.pop((namespace, name), None)

    def problems(self, objects: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The objects that this client may not change, as far as known -> the permission."""
        open_ = [one for one in objects if self._known.get(one) != ""]
        idle = self._asking is None or self._asking.done()
        if open_ and idle and time.monotonic() - self._asked_s >= RECHECK_S:
            self._asked_s = time.monotonic()
            self._asking = in_thread(lambda: self.ask(open_))
        return {one: self._known[one] for one in objects if self._known.get(one)}


# --- all checks -----------------------------------------------------------------------------------


class JobChecks:
    """What is wrong with the jobs of a cluster, by what it has read last.

    sections : problems of the jobs' sections (`refs_of`).
    permissions : None in a dry run, which needs none. A dry run also plans for a job that an HPA
        scales, so that the two can be compared.
    """

    def __init__(
        self,
        cluster: Deployments,
        sections: Mapping[int, str],
        permissions: ObjectPermissions | None,
    ):
        self._cluster = cluster
        self.sections = sections
        self._permissions = permissions

    def __call__(self) -> tuple[Finding, ...]:
        acts = self._permissions is not None
        return (
            Finding("table", MISCONFIGURED, self.sections, held=True),
            Finding("deployments", GONE, self._gone(), held=False),
            Finding("autoscalers", self._hpa_state(), self._hpa_problems(), held=acts),
            Finding("permissions", MISCONFIGURED, self._forbidden(), held=True),
        )

    def ask(self) -> None:
        """Ask for the permissions that are not known yet; this may wait for the API server."""
        if self._permissions:
            self._permissions.ask(self._objects())

    def _objects(self) -> list[tuple[str, str]]:
        """(namespace, name) of the object of each job that Faro changes."""
        by_hpa = isinstance(self._cluster, BoundedDeployments)
        return [
            (ref.namespace, ref.autoscaler if by_hpa else ref.name) for ref in self._cluster.refs
        ]

    def _gone(self) -> dict[int, str]:
        return {
            n: f"deployment '{self._cluster.refs[n]}' does not exist"
            for n, state in enumerate(self._cluster.states)
            if state is None and n not in self.sections
        }

    def _hpa_state(self) -> str:
        return MISCONFIGURED if isinstance(self._cluster, BoundedDeployments) else CONTESTED

    def _hpa_problems(self) -> dict[int, str]:
        problems = {}
        cluster = self._cluster
        for n, (ref, state, hpa) in enumerate(zip(cluster.refs, cluster.states, cluster.hpas)):
            if state is None or n in self.sections:
                continue
            if isinstance(cluster, BoundedDeployments):
                try:
                    check_bounded([ref], [hpa])
                except ValueError as error:
                    problems[n] = str(error)
            elif hpa is not None:
                name = hpa["metadata"]["name"]
                problem = f"is also scaled by HorizontalPodAutoscaler {name!r}; delete it"
                problems[n] = f"deployment '{ref}' {problem}"
        return problems

    def _forbidden(self) -> dict[int, str]:
        if self._permissions is None:
            return {}
        objects = self._objects()
        for n in self._cluster.forbidden:
            self._permissions.doubt(*objects[n])
        self._cluster.forbidden.clear()
        asked = [one for n, one in enumerate(objects) if n not in self.sections]
        problems = self._permissions.problems(asked)
        return {n: problems[one] for n, one in enumerate(objects) if one in problems}


def problems_of(findings: Iterable[Finding]) -> dict[int, str]:
    """Index of each job that Faro does not scale -> the first reason."""
    problems: dict[int, str] = {}
    for finding in findings:
        if finding.held or finding.state == GONE:
            for n, reason in finding.reasons.items():
                problems.setdefault(n, reason)
    return problems
