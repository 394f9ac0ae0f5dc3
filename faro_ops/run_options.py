"""The options of `faro run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from faro_ops.section import Section, Shown

if TYPE_CHECKING:
    from faro_ops.protocol import LiveGuardrails


class RunOptions(Section):
    """The options of `faro run`: an option has the name of its field, without the unit."""

    jobs: str = Field(
        description="Table of jobs, .yaml or .csv; a .yaml says how each job is served."
    )
    backend: Literal["local", "rayserve", "deployments"] = Field(
        "rayserve", description="local (starts Ray here), rayserve or deployments."
    )
    address: str | None = Field(None, description="Address of Ray's dashboard, http://host:8265.")
    serve_address: Annotated[str | None, Shown("port 8000 of the same host")] = Field(
        None, description="Address of Ray Serve."
    )
    policy: str = Field("Faro-Sum", description="Name of the policy.")
    history: str | None = Field(
        None,
        description="Counts to learn from: a file (job, requests, minute[, day] or time; or a log "
        "with a row for each request), or `prometheus` or `journal`.",
    )
    forecaster: str = Field("auto", description="Forecaster to fit to --history.")
    no_learning: bool = Field(
        False,
        description="Take service times as stated; a Faro policy otherwise learns them.",
    )
    apply: bool = Field(False, description="Scale the jobs; without it, only print plans.")
    act: Literal["replicas", "ceilings"] = Field(
        "replicas",
        description="What --apply changes: replicas, or ceilings, the bounds of "
        "HorizontalPodAutoscalers.",
    )
    earn: bool = Field(
        False, description="Change a service only as far as it has earned (faro trust)."
    )
    journal: str | None = Field(
        None, description="Folder that records every tick; a run resumes from it."
    )
    tick_s: Annotated[float | None, Shown("the policy's own")] = Field(
        None, gt=0, description="Seconds between ticks."
    )
    capacity: Annotated[int | None, Shown("all cores of the cluster")] = Field(
        None, ge=1, le=1_000_000, description="Cores that the jobs may use."
    )
    # `LiveGuardrails` has the limits of the six options from here to deadline_s, and of force.
    fail_mode: str = Field(
        "hold", description="Response to missing data or a failed policy: hold or fair-share."
    )
    max_scaling_actions: int | None = Field(
        None, description="Replicas that one tick may add or remove."
    )
    max_scale_down: float = Field(
        0.2,
        description="Largest share of all replicas that is removed a minute; at least one may be.",
    )
    stale_after_s: float = Field(
        60.0, description="Seconds without a job's data until the fail mode applies."
    )
    deadline_s: Annotated[float | None, Shown("never")] = Field(
        None, description="Seconds after which a decision is discarded."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port that serves Prometheus metrics; 0: any."
    )
    metrics_address: str = Field("127.0.0.1", description="Network address of the metrics port.")
    seconds: Annotated[float | None, Shown("never")] = Field(
        None, ge=0, description="Seconds after which the run stops."
    )
    plan: str | None = Field(
        None, description="NAMESPACE/NAME of the FaroPlan and its Lease (Kubernetes)."
    )
    kubeconfig: Annotated[str | None, Shown("in a pod its ServiceAccount")] = Field(
        None, description="kubeconfig file."
    )
    context: Annotated[str | None, Shown("the current one")] = Field(
        None, description="kubeconfig context."
    )
    prometheus: str | None = Field(
        None, description="Address of the Prometheus server to query, http://host:9090."
    )
    prometheus_token: str | None = Field(
        None, description="File with a bearer token for Prometheus."
    )
    ca_file: str | None = Field(
        None, description="PEM file of the certificate authority of Ray and Prometheus."
    )
    log: Literal["text", "json"] = Field("text", description="Format of the log: text or json.")
    force: bool = Field(
        False, description="Take over from another controller; overrule other clients."
    )
    start_timeout_s: float = Field(
        180.0, gt=0, description="Seconds that a Ray started here, and its jobs, may take."
    )
    watch: bool = Field(
        False,
        description="Draw the jobs after every tick instead of printing a line of JSON.",
    )
    wait: bool = Field(
        False, description="If jobs are not served yet, wait (unready) instead of exiting."
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.ceilings and self.backend != "deployments":
            raise ValueError(
                "act=ceilings needs --backend deployments, "
                "whose HorizontalPodAutoscalers choose the replicas"
            )
        if self.backend == "deployments" and self.plan is None:
            raise ValueError("backend=deployments needs --plan NAMESPACE/NAME")
        if self.backend == "local" and self.capacity is None:
            raise ValueError(
                "backend=local needs --capacity, the cores of the cluster that it starts"
            )
        _ = self.guardrails  # raises if one is invalid
        return self

    @property
    def ceilings(self) -> bool:
        """Whether Faro sets bounds of HorizontalPodAutoscalers instead of replicas."""
        return self.act == "ceilings"

    @property
    def guardrails(self) -> LiveGuardrails:
        """The limits of the live loop. ValueError if one is invalid."""
        from faro_ops.protocol import LiveGuardrails

        return LiveGuardrails(
            fail_mode=self.fail_mode,
            max_scaling_actions=self.max_scaling_actions,
            stale_after_s=self.stale_after_s,
            force=self.force,
            deadline_s=self.deadline_s,
            max_scale_down=self.max_scale_down,
        )
