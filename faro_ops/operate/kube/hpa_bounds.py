"""Jobs scaled by HorizontalPodAutoscalers (HPAs): Faro only sets minReplicas and maxReplicas.

An annotation of each HPA keeps its original bounds, so that they can be restored, and the bounds
that Faro last wrote, so that `restore` leaves bounds that an operator has changed since. It is
written together with the first bounds of Faro, and removed together with the last.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from faro_ops.operate.kube.client import MANAGER, MERGE, Api, ApiError
from faro_ops.operate.kube.conflicts import CONFLICT, after_conflicts
from faro_ops.operate.kube.deployments import (
    AUTOSCALERS,
    DeploymentRef,
    Deployments,
    last_writer,
    place_of,
)
from faro_ops.operate.limits.bounds import HAND_BACK, KEEP_FLOOR
from faro_ops.operate.scaling import NOT_LEADER, MayAct, NotScaled, growth, summary
from faro_ops.protocol import LiveObservation

# Annotation of an HPA whose bounds Faro has set: a `BoundsNote` as JSON.
NOTE = "autoscaling.faro/bounds"
# Seconds without a leader after which the standby controller restores the original bounds.
UNLED_S = 300.0


# --- one HPA as an API object ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BoundsNote:
    """What Faro notes on an HPA about its bounds; bounds are (minReplicas, maxReplicas)."""

    original: tuple[int, int]  # before Faro set any
    written: tuple[int, int]  # that Faro wrote last
    # namespace/name of the FaroPlan whose controller wrote them; "" if it has none.
    plan: str = ""

    @classmethod
    def of(cls, hpa: dict) -> Self | None:
        """The note on an HPA, or None; ValueError if it is damaged."""
        text = hpa["metadata"].get("annotations", {}).get(NOTE)
        if text is None:
            return None
        try:
            fields = json.loads(text)
            (low, high), (low_written, high_written) = fields["original"], fields["written"]
            return cls(
                (int(low), int(high)), (int(low_written), int(high_written)), str(fields["plan"])
            )
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            raise ValueError(f"its annotation {NOTE} is damaged: {text[:80]!r}") from None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def bounds_of(hpa: dict) -> tuple[int, int]:
    """(minReplicas, maxReplicas) of an HPA; the Kubernetes default of minReplicas is 1."""
    return hpa["spec"].get("minReplicas", 1), hpa["spec"]["maxReplicas"]


def original_of(hpa: dict) -> tuple[int, int] | None:
    """The bounds that the HPA had before Faro set any; None if Faro has not, or they are lost."""
    try:
        note = BoundsNote.of(hpa)
    except ValueError:
        return None
    return note.original if note else None


def hpa_path(hpa: dict) -> str:
    group, plural = AUTOSCALERS
    metadata = hpa["metadata"]
    return f"{group}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def patched(api: Api, hpa: dict, bounds: tuple[int, int], note: BoundsNote | None) -> dict:
    """Set an HPA's bounds and its note (None removes it), and return the HPA.

    ApiError 409 if the HPA has changed since it was read.
    """
    low, high = bounds
    metadata: dict[str, Any] = {
        "annotations": {NOTE: note.to_json() if note else None},
        "resourceVersion": hpa["metadata"]["resourceVersion"],
    }
    body = {"metadata": metadata, "spec": {"minReplicas": low, "maxReplicas": high}}
    return api.send("PATCH", hpa_path(hpa), body, kind=MERGE, fieldManager=MANAGER)


def own_bounds(hpa: dict, note: BoundsNote) -> tuple[int, int]:
    """The bounds that an HPA gets when Faro no longer sets them.

    They are its original ones, unless another client has changed the bounds that Faro wrote.
    """
    current = bounds_of(hpa)
    return note.original if current == note.written else current


# --- bounds are written ---------------------------------------------------------------------------


class BoundedDeployments(Deployments):
    """Deployments whose HPAs choose the replica counts.

    Faro's `target` for a job is the maxReplicas of the job's HPA.

    owner : namespace/name of the controller's FaroPlan, for the note on each HPA.
    """

    def __init__(self, *args: Any, owner: str = "", **options: Any):
        super().__init__(*args, **options)
        self._owner = owner
        # (jobs,) maxReplicas to set once other HPAs have removed replicas; 0 = none
        self._waiting: np.ndarray | int = 0

    def observe(self) -> LiveObservation:
        observation = super().observe()
        # Until Faro has set an HPA's bounds, the target is the replica count, not maxReplicas.
        low, high, ours = self._bounds()
        target = np.where(self._waiting, self._waiting, np.where(ours, high, observation.target))
        # Report no job as `changing`: bounds can be set even while an HPA adds or removes replicas.
        return replace(
            observation,
            target=target,
            changing=np.zeros(len(target), bool),
            unbounded=~ours,
            replicas=observation.running + observation.starting,
            floor=low,
        )

    def apply(
        self,
        target: np.ndarray,
        drop: np.ndarray,
        may_act: MayAct = lambda: True,
        floor: np.ndarray | None = None,
    ) -> None:
        """Set each HPA's maxReplicas to `target` and minReplicas to `floor`, both (jobs,).

        Rises of maxReplicas come last. A rise waits for a later tick if it needs cores that other
        HPAs still have to free, by the replicas of their Deployments. Pods that still end are not
        among these; the plan leaves room for them where the capacity is measured.

        The floor KEEP_FLOOR, the default for all jobs, leaves minReplicas unchanged. If Faro has
        not set an HPA's bounds yet, KEEP_FLOOR leaves maxReplicas unchanged too. The floor
        HAND_BACK gives an HPA its own bounds back. Raises NotScaled with the first error
        and the number of other errors.
        """
        self._drop = np.array(drop, float)
        # Arrays (jobs,)
        low, high, ours = self._bounds()
        floor = np.full(len(low), KEEP_FLOOR) if floor is None else floor
        back = ours & (floor == HAND_BACK)
        asked = ~back & (floor != HAND_BACK) & (ours | (floor != KEEP_FLOOR))
        # An HPA whose Deployment is gone keeps its bounds, because the Deployment may come back.
        asked &= np.array([state is not None for state in self._states])
        # HPAs require maxReplicas >= 1; `high` is 0 without an HPA.
        target = np.maximum(target, np.minimum(high, 1))
        wanted = np.minimum(np.where(floor == KEEP_FLOOR, low, floor), target)
        changed = asked & ((wanted != low) | (target != high))
        rises = asked & (target > high)
        pods = np.array([state.target if state else 0 for state in self._states])
        refused: list[int] = []

        def attempt(job: int, bounds: tuple[int, int] | None) -> str | None:
            try:
                self._bound(job, bounds, may_act)
            except (OSError, ValueError) as error:
                refused.append(job)
                name = self.refs[job].name
                return f"the bounds of {name} are not set to {bounds or 'its own'}: {error}"
            if bounds:
                high[job] = bounds[1]
            return None

        def attempts(jobs: np.ndarray, bounds: Callable[[int], tuple[int, int] | None]) -> None:
            indices = np.flatnonzero(jobs).tolist()
            errors.extend(self._threads.map(attempt, indices, [bounds(job) for job in indices]))

        def planned(job: int) -> tuple[int, int] | None:
            return None if back[job] else (int(wanted[job]), int(target[job]))

        errors: list[str | None] = []
        attempts(back | (changed & ~rises), planned)
        # After a failure, `high` is still the HPA's own, so that no rise uses cores not yet freed.
        used = np.where(asked, np.maximum(high, pods), pods)
        grows = rises & ((target <= used) | growth(target, used, self._arrays.cores, self.cores))
        self._waiting = np.where(rises & ~grows, target, 0)
        # Bounds of a first rise that waits become Faro's as they are. From the next tick on, the
        # plan is then cut to what finds room beside pods that still end (placement.py).
        attempts(rises & ~grows & ~ours, lambda job: (int(low[job]), int(high[job])))
        attempts(grows, planned)
        failed = [error for error in errors if error]
        if failed:
            raise NotScaled(summary(failed), np.array(sorted(refused)))

    def _bound(self, job: int, bounds: tuple[int, int] | None, may_act: MayAct) -> None:
        """Set an HPA's bounds; `bounds=None` gives it its own back (`own_bounds`).

        ApiError if another client has set others since the observation.
        """
        if not may_act():
            raise ApiError(0, NOT_LEADER)
        hpa = self._autoscalers[job]
        if hpa is None:
            raise ApiError(404, "it has no HorizontalPodAutoscaler")
        path, observed, before = hpa_path(hpa), bounds_of(hpa), BoundsNote.of(hpa)
        wanted = bounds or (own_bounds(hpa, before) if before else observed)

        def write(hpa: dict) -> dict:
            note, before = None, BoundsNote.of(hpa)
            if bounds:
                note = BoundsNote(before.original if before else observed, bounds, self._owner)
            try:
                return patched(self._api, hpa, wanted, note)
            except ApiError as error:
                if error.status == 403:
                    self.forbidden.add(job)
                raise

        def read() -> dict:
            """The HPA, if its bounds have not changed."""
            current = self._api.get(path)
            theirs = bounds_of(current)
            if theirs not in (observed, wanted):
                raise ApiError(CONFLICT, "another client has set {}-{}".format(*theirs))
            return current

        self._autoscalers[job] = after_conflicts(write, hpa, read, "it can be bounded")

    def _bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """minReplicas, maxReplicas and whether Faro has set them, each (jobs,).

        They are 0, 0, False without an HPA.
        """
        low, high = np.array([bounds_of(hpa) if hpa else (0, 0) for hpa in self._autoscalers]).T
        ours = np.array([bool(hpa and original_of(hpa)) for hpa in self._autoscalers])
        return low, high, ours

    def writer_of(self, job: int) -> str | None:
        """The field manager, other than Faro, that last wrote maxReplicas of the HPA, or None."""
        return last_writer(self._autoscalers[job], "f:maxReplicas")


# --- bounds are restored --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `restore` did with one HPA, or in one namespace."""

    place: str  # namespace/name of the HPA, or the namespace
    text: str
    failed: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def find(api: Api, namespaces: Sequence[str]) -> tuple[list[dict], list[Outcome]]:
    """All HPAs that the client may list, and an outcome for what is not searched.

    They are those of the whole cluster, or, if the client may not list these, of `namespaces`.
    """
    group, plural = AUTOSCALERS
    try:
        return api.get(f"{group}/{plural}")["items"], []
    except ApiError as error:
        failed = error.status != 403
        reason = str(error) if failed else "no permission; --namespace names some of them"
        unsearched = [Outcome("other namespaces", f"not searched: {reason}", failed)]
    hpas: list[dict] = []
    for namespace in dict.fromkeys(namespaces):
        try:
            hpas += api.get(f"{group}/namespaces/{namespace}/{plural}")["items"]
        except ApiError as error:  # the other namespaces are still searched
            unsearched.append(Outcome(f"namespace {namespace}", f"not searched: {error}", True))
    return hpas, unsearched


def restore(
    api: Api, hpas: Iterable[dict | None], plan: str = "", force: bool = False
) -> list[Outcome]:
    """Restore the original bounds of the HPAs that Faro has changed; one outcome for each of them.

    Bounds that another client has changed since are left, together with Faro's note.

    plan : namespace/name of a FaroPlan: only the HPAs that its controller has changed; "": all.
    force : restore the original bounds even if another client has changed them since.
    """
    outcomes = []
    for hpa in hpas:
        if not hpa:
            continue
        place = place_of(hpa, hpa["metadata"]["name"])
        try:
            text = _restored(api, hpa, plan, force)
        except (OSError, ValueError) as error:  # the other HPAs are still restored
            outcomes.append(Outcome(place, f"not restored: {error}", failed=True))
            continue
        if text:
            outcomes.append(Outcome(place, text))
    return outcomes


def _restored(api: Api, hpa: dict, plan: str, force: bool) -> str | None:
    """Restore one HPA, and return what was done; None if Faro has not set its bounds."""
    path = hpa_path(hpa)

    def write(hpa: dict) -> str | None:
        note = BoundsNote.of(hpa)
        if note is None or (plan and note.plan not in ("", plan)):
            return None
        original = "{}-{}".format(*note.original)
        if own_bounds(hpa, note) != note.original and not force:
            changed = "{}-{}, because another client has changed Faro's {}-{}".format(
                *bounds_of(hpa), *note.written
            )
            return f"left at {changed}; `faro restore --force` restores {original}"
        patched(api, hpa, note.original, None)
        return f"bounds {original} restored"

    return after_conflicts(write, hpa, lambda: api.get(path), "it can be restored")


# --- what is checked before the start -------------------------------------------------------------


def check_bounded(refs: Iterable[DeploymentRef], hpas: Iterable[dict | None]) -> None:
    """Raise ValueError if Faro cannot set the bounds of an HPA.

    It cannot if the HPA is missing or misnamed, has an owner, or has minReplicas > the job's
    min_replicas.
    """
    for ref, hpa in zip(refs, hpas):
        if hpa is None:
            problem = "has no HorizontalPodAutoscaler; --act ceilings sets the bounds of one"
            raise ValueError(f"deployment '{ref}' {problem}")
        low, _ = original_of(hpa) or bounds_of(hpa)
        least = ref.job.min_replicas
        # `faro set` may fix min = max replicas below `low`.
        if least < min(max(low, 1), ref.job.max_replicas):
            problem = f"but its HPA keeps {low}; write min_replicas: {max(low, 1)} into the table"
            raise ValueError(f"job {ref.job.name!r}: min_replicas={least}, {problem}")
        name = hpa["metadata"]["name"]
        if name != ref.autoscaler:
            problem = f"deployment.autoscaler={ref.autoscaler!r} must be {name!r}"
            raise ValueError(f"job {ref.job.name!r}: {problem}")
        owners = hpa["metadata"].get("ownerReferences", [])
        if owners:
            owner = f"{owners[0]['kind']} {owners[0]['name']!r}"
            raise ValueError(
                f"HorizontalPodAutoscaler {name!r} belongs to {owner}, which would reset its bounds"
            )
