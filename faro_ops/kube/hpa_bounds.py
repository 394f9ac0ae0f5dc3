"""Jobs scaled by HorizontalPodAutoscalers (HPAs): Faro only sets minReplicas and maxReplicas.

An annotation of each HPA keeps its original bounds, so that `restore` can put them back. It is
written together with the first bounds of Faro, and removed together with the last.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from faro_ops.controller.scaling import NOT_LEADER, MayAct, growth, summary
from faro_ops.kube.client import MANAGER, MERGE, Api, ApiError
from faro_ops.kube.deployments import (
    AUTOSCALERS,
    SCALE_ATTEMPTS,
    DeploymentRef,
    Deployments,
    last_writer,
)
from faro_ops.policies.bounds import HAND_BACK, KEEP_FLOOR
from faro_ops.policies.protocol import LiveObservation

# Annotation of an HPA: its original bounds as JSON, [min, max].
ORIGINAL = "autoscaling.faro/original-bounds"
# Seconds without a leader after which the standby controller restores the original bounds.
UNLED_S = 300.0


# --- one HPA as an API object ---------------------------------------------------------------------


def bounds_of(hpa: dict) -> tuple[int, int]:
    """(minReplicas, maxReplicas) of an HPA; the Kubernetes default of minReplicas is 1."""
    return hpa["spec"].get("minReplicas", 1), hpa["spec"]["maxReplicas"]


def original_of(hpa: dict) -> tuple[int, int] | None:
    """The bounds in the annotation ORIGINAL; None if it is missing or invalid."""
    try:
        low, high = json.loads(hpa["metadata"].get("annotations", {})[ORIGINAL])
        return int(low), int(high)
    except (KeyError, TypeError, ValueError):
        return None


def hpa_path(hpa: dict) -> str:
    group, plural = AUTOSCALERS
    metadata = hpa["metadata"]
    return f"{group}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"


def patched(
    api: Api, hpa: dict, bounds: tuple[int, int], original: str | None, version: str | None = None
) -> dict:
    """Set an HPA's bounds, and its annotation to `original` (None removes it).

    Returns the HPA. ApiError 409 if `version` is given and is not the HPA's resourceVersion.
    """
    low, high = bounds
    metadata: dict[str, Any] = {"annotations": {ORIGINAL: original}}
    if version:
        metadata["resourceVersion"] = version
    body = {"metadata": metadata, "spec": {"minReplicas": low, "maxReplicas": high}}
    return api.send("PATCH", hpa_path(hpa), body, kind=MERGE, fieldManager=MANAGER)


# --- bounds are written ---------------------------------------------------------------------------


class BoundedDeployments(Deployments):
    """Deployments whose HPAs choose the replica counts.

    Faro's `target` for a job is the maxReplicas of the job's HPA.
    """

    # (jobs,) maxReplicas to set once other HPAs have removed replicas; 0 = none
    _waiting: np.ndarray | int = 0

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
        HPAs still have to free. The floor KEEP_FLOOR, the default for all jobs, leaves minReplicas
        unchanged. If Faro has not set an HPA's bounds yet, KEEP_FLOOR leaves maxReplicas unchanged
        too. The floor HAND_BACK restores the original bounds. Raises ApiError with the first error
        and the number of other errors.
        """
        self._drop = np.array(drop, float)
        # Arrays (jobs,)
        low, high, ours = self._bounds()
        floor = np.full(len(low), KEEP_FLOOR) if floor is None else floor
        back = ours & (floor == HAND_BACK)
        asked = ~back & (floor != HAND_BACK) & (ours | (floor != KEEP_FLOOR))
        # HPAs require maxReplicas >= 1; `high` is 0 without an HPA.
        target = np.maximum(target, np.minimum(high, 1))
        wanted = np.minimum(np.where(floor == KEEP_FLOOR, low, floor), target)
        changed = asked & ((wanted != low) | (target != high))
        rises = asked & (target > high)
        pods = np.array([state.target if state else 0 for state in self._states])

        def attempt(job: int) -> str | None:
            bounds = None if back[job] else (int(wanted[job]), int(target[job]))
            try:
                self._bound(job, bounds, may_act)
            except (OSError, ValueError) as error:
                name = self.refs[job].name
                return f"the bounds of {name} are not set to {bounds or 'its own'}: {error}"
            high[job] = target[job]
            return None

        first = np.flatnonzero(back | (changed & ~rises)).tolist()
        errors = [*self._threads.map(attempt, first)]
        # After a failure, `high` is still the HPA's own, so that no rise uses cores not yet freed.
        used = np.where(asked, np.maximum(high, pods), pods)
        grows = rises & ((target <= used) | growth(target, used, self._arrays.cores, self.cores))
        self._waiting = np.where(rises & ~grows, target, 0)
        errors += self._threads.map(attempt, np.flatnonzero(grows).tolist())
        failed = [error for error in errors if error]
        if failed:
            raise ApiError(0, summary(failed))

    def _bound(self, job: int, bounds: tuple[int, int] | None, may_act: MayAct) -> None:
        """Set an HPA's bounds; `bounds=None` restores the original ones.

        ApiError if another client has set others since the observation.
        """
        if not may_act():
            raise ApiError(0, NOT_LEADER)
        hpa = self._autoscalers[job]
        if hpa is None:
            raise ApiError(404, "it has no HorizontalPodAutoscaler")
        observed = bounds_of(hpa)
        # Retry, because an update of the HPA's status, every 15 s, changes its resourceVersion.
        for _ in range(SCALE_ATTEMPTS):
            version = hpa["metadata"]["resourceVersion"]
            original = original_of(hpa) or observed
            note = json.dumps(original) if bounds else None
            try:
                self._autoscalers[job] = patched(self._api, hpa, bounds or original, note, version)
                return
            except ApiError as error:
                if error.status != 409:
                    raise
            hpa = self._api.get(hpa_path(hpa))
            theirs = bounds_of(hpa)
            if theirs not in (observed, bounds):
                raise ApiError(409, "another client has set {}-{}".format(*theirs))
        raise ApiError(409, "it changes faster than it can be bounded")

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


def restore(api: Api, hpas: Iterable[dict | None]) -> list[str]:
    """Restore the original bounds of the HPAs that Faro has changed; returns one line per HPA."""
    lines = []
    for hpa in hpas:
        original = original_of(hpa) if hpa else None
        if not hpa or not original:
            continue
        try:
            patched(api, hpa, original, None)
            outcome = f"bounds {original[0]}-{original[1]} restored"
        except ApiError as error:  # the other HPAs are still restored
            outcome = f"not restored: {error}"
        lines.append(f"{hpa['metadata']['name']}: {outcome}")
    return lines


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
