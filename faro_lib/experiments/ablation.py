"""What each step is worth: the paper's ablation in its order (its Figure 16), then ours, one step at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from faro_lib.policies.faro import FALLBACK_MODEL, Faro, tuned, tuned_options
from faro_lib.policies.paper import ExactPaperFaro, PaperFaro
from faro_lib.policies.protocol import Policy
from faro_lib.policies.registry import PolicyContext

PAPER, OURS = "paper", "ours"
OBJECTIVE = "FairSum"  # that of the published ablation


@dataclass(frozen=True, slots=True)
class Variant:
    """One step: a policy that differs from the one before it in what it `adds`.

    edition : "paper" for the published steps, "ours" for those that follow them.
    published : the step's name in the published table; "" where it has none.
    """

    name: str
    adds: str
    policy: Policy
    edition: str
    published: str = ""


def paper_steps(context: PolicyContext, objective: str = OBJECTIVE) -> list[Variant]:
    """From step utilities, bursts, no forecast and no reaction to the paper's edition, in the published order."""
    bare = PaperFaro(
        context.require("forecaster", "the ablation"),
        name="no relaxation",
        objective=objective,
        latency_model="upper-bound",
        utility="precise",
        predictive=False,
        quantile=None,
        adaptive=False,
        shrink=False,
        reactive=False,
    )
    final = PaperFaro(context.forecaster)
    steps: list[tuple[str, str, str, dict[str, Any]]] = [
        ("conf2", "+ relaxation", "inverse utility instead of a step", {"utility": final.utility}),
        ("conf3", "+ M/D/c", "queueing instead of bursts that arrive together", {"latency_model": final.latency_model}),
        ("conf4", "+ prediction", "a point forecast of 7 minutes", {"predictive": True}),
        ("conf5", "+ reaction", "one replica more after 30 s above the SLO", {"reactive": True}),
        ("conf6", "+ shrinking", "what is not missed is given back", {"shrink": True}),
        (
            "final",
            "+ probability",
            f"quantile {final.quantile} of 100 samples, higher while replicas are free",
            {"quantile": final.quantile, "adaptive": True},
        ),
    ]
    about = "step utility, bursts, no forecast, no reaction, no shrinking"
    variants = [Variant(bare.name, about, bare, PAPER, "conf1")]
    for published, name, adds, changes in steps:
        variants.append(
            Variant(name, adds, replace(variants[-1].policy, name=name, **changes), PAPER, published)  # type: ignore[type-var]
        )
    return variants


def our_steps(
    context: PolicyContext, objective: str = OBJECTIVE, options: dict[str, Any] | None = None
) -> list[Variant]:
    """From the paper's edition to `policies.faro.tuned`: what the paper leaves on the table.

    Parameters
    ----------
    options : those of our edition; `policies.faro.tuned_options` if None.
    """
    options = tuned_options(objective) if options is None else options
    forecaster = context.require("forecaster", "the ablation")
    exact = ExactPaperFaro(forecaster, name="+ exact solver", objective=objective)
    paths = Faro(forecaster, name="+ sample paths", objective=objective)
    name, about = ("+ latency model", f"the formula {FALLBACK_MODEL!r} instead of half M/M/c")
    if context.latency_model is not None:
        name, about = ("+ measured latency", "what constant rates did instead of half M/M/c")
    measured = replace(paths, name=name, latency_model=tuned(context, objective).latency_model)
    variants = [
        Variant(exact.name, "whole numbers, exactly, instead of COBYLA", exact, OURS),
        Variant(paths.name, f"the mean utility over {paths.samples} paths instead of a quantile", paths, OURS),
        Variant(measured.name, about, measured, OURS),
    ]
    switches: list[tuple[str, str, tuple[str, ...]]] = [
        ("+ early and often", "decides every {interval_s:g} s, from {first_s:g} s on", ("first_s", "interval_s", "phase_s")),
        ("+ nowcast", "looks at the minute that is going on", ("nowcast",)),
        ("+ slow starts", "{cold_start_minutes:g} minutes until a grown job is served", ("cold_start_minutes",)),
        ("+ price of moves", "a job's move costs {switching_cost:g} utilities", ("switching_cost",)),
        ("+ small spread", "the spread weighs {gamma:g} instead of the number of jobs", ("gamma",)),
        ("+ deficit_weighting", "losses so far weigh with exponent {deficit_weighting:g}", ("deficit_weighting",)),
    ]  # fmt: skip
    known = {field for *_, fields in switches for field in fields}
    others = tuple(field for field in options if field not in known)
    if others:
        switches.append(("+ the rest", "all other options: " + ", ".join(others), others))
    current: dict[str, Any] = {}
    for name, adds, fields in switches:
        changes = {field: options[field] for field in fields if field in options}
        if not changes:
            continue
        current |= changes
        policy = replace(measured, name=name, **current)
        variants.append(Variant(name, adds.format(**options), policy, OURS))
    return variants


def variants(context: PolicyContext, objective: str = OBJECTIVE) -> list[Variant]:
    """All steps, the paper's and then ours."""
    return [*paper_steps(context, objective), *our_steps(context, objective)]
